"""What a training run starts from: its output folder, its events, its untrained model."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import get_int_from_env
from torch.utils import deterministic

from dmesr_model.adapters import Adapter
from dmesr_model.batches import FEWEST_TRAINING_EVENTS
from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.files import replace_text
from dmesr_model.item_batches import ItemGatherer
from dmesr_model.model import DMESR
from dmesr_model.model_config import ModelConfig
from dmesr_model.sequences import HeldOut, Sequences, count_events, hold_out_last, leave_one_out, select_users

_ITEMS_FOR_MEAN = 4096  # up to twice as many are read: 200 MB of vectors with 16 segments each
_VECTORS_THAT_TELL = 1024  # up to twice as many are read

SplitName = Literal["leave_one_out", "last_event", "none"]


def claim_output(output_dir: Path, features: ItemFeatures, sequences: Sequences, settings: dict[str, Any]) -> None:
    """Note whose run this folder holds. Raises ValueError where it already holds a run with other settings or data.

    A folder in which nothing was trained yet is claimed anew. Of several processes the main one is to come first.
    Vectors are known by the shape of their table and a sample of its rows, evenly spaced.
    """
    spacing = max(len(features.vectors_UE) // _VECTORS_THAT_TELL, 1)
    identity = {
        **settings,
        "items": hashlib.sha256(json.dumps(features.item_ids).encode()).hexdigest(),
        "histories": _digest(sequences.item_index, sequences.offsets),
        "features": list(features.views),
        "texts": _digest(features.coarse_index_NV, features.segment_index_NL),
        "vectors": [*features.vectors_UE.shape, _digest(features.vectors_UE[::spacing])],
    }
    path = output_dir / "run.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    if held == identity:
        return
    if held and any((output_dir / name).exists() for name in ("checkpoints", "summary.json")):
        differ = ", ".join(_differing(held, identity))
        raise ValueError(f"{output_dir} holds a run with other settings or data ({differ}); name another output folder")
    replace_text(path, json.dumps(identity, indent=2))


def _differing(held: object, wanted: object, name: str = "") -> list[str]:
    """Names of the parts in which two trees of JSON differ, such as `train.optimizer.warmup_steps`."""
    if not isinstance(held, dict) or not isinstance(wanted, dict):
        return [] if held == wanted else [name]
    absent = ()  # is no JSON
    pairs = {key: (held.get(key, absent), wanted.get(key, absent)) for key in sorted(held.keys() | wanted.keys())}
    return [part for key, pair in pairs.items() for part in _differing(*pair, f"{name}.{key}" if name else key)]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_items(features: ItemFeatures, sequences: Sequences) -> None:
    """Raises ValueError where the sequences name items that the features don't hold."""
    last = int(np.max(sequences.item_index, initial=0))
    if last > features.item_count:
        raise ValueError(
            f"the sequences name item_index {last}, but the features hold {features.item_count} items; save both from "
            "one catalog"
        )


@contextmanager
def own_accelerator(mixed_precision: str) -> Iterator[Accelerator]:
    """An Accelerator for one run. Another run in this process may have another precision.

    accelerate holds the first Accelerator's for the whole process. One that the caller made keeps it; where that has
    another precision, accelerate raises ValueError. Processes that `torchrun` started train together on the CPU where
    there is no GPU: accelerate would take each for a run of its own.

    Raises:
        ValueError: of several processes that were started, each would train alone, into the same folder.
    """
    is_the_callers = is_initialized()
    started = get_int_from_env(["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"], 1)
    on_cpu = started > 1 and "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=on_cpu and not is_the_callers)
        if accelerator.num_processes < started:
            raise ValueError(
                f"WORLD_SIZE, or MPI's variable for it, says {started} processes, but accelerate finds "
                f"{accelerator.num_processes}, and each would train alone into one folder; start them with torchrun, "
                "on a CPU with ACCELERATE_USE_CPU=true set, or unset the variable to train with one"
            )
        yield accelerator
    finally:
        if not is_the_callers:
            AcceleratorState._reset_state()


def use_deterministic_kernels(device: torch.device) -> None:
    """Make a GPU give the same numbers each time, as a CPU does; to be called before its first product of matrices."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS chooses among workspaces as it comes
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over all memory


def place_on_gpu(gatherer: ItemGatherer, device: torch.device) -> None:
    """Copy the text vectors that a model reads to the GPU, where they take at most a quarter of what is free there."""
    reads_text = gatherer.use_segments or gatherer.coarse_index_NV.shape[1] > 0
    if device.type != "cuda" or not reads_text:
        return
    if gatherer.features.vectors_UE.nbytes <= torch.cuda.mem_get_info(device)[0] / 4:
        gatherer.keep_on(device)


def split_events(sequences: Sequences, split: SplitName) -> tuple[Sequences, HeldOut | None]:
    """(training events, validation events).

    A lone training event is none: nothing is predicted from it, and an item with no other would be a negative alone.
    """
    train, validation = _split(sequences, split)
    return select_users(train, np.flatnonzero(train.lengths >= FEWEST_TRAINING_EVENTS)), validation


def _split(sequences: Sequences, split: SplitName) -> tuple[Sequences, HeldOut | None]:
    if split == "leave_one_out":
        parts = leave_one_out(sequences)
        return parts.train, parts.validation
    if split == "last_event":
        return hold_out_last(sequences)
    return sequences, None


def share_of_process(held_out: HeldOut, rank: int, processes: int) -> HeldOut:
    """Users rank, rank + processes, ..."""
    users = np.arange(len(held_out.target_index_H))[rank::processes]
    return HeldOut(select_users(held_out.histories, users), held_out.target_index_H[users])


def build_model(features: ItemFeatures, train: Sequences, config: ModelConfig, seed: int) -> DMESR:
    """A model with weights from the seed, and an ID row for each item with a training event."""
    views = features.views if config.views is None else config.views
    trained = np.flatnonzero(count_events(train, features.item_count)[1:])
    torch.manual_seed(seed)
    item_ids = [features.item_ids[position] for position in trained]
    named = ModelConfig.model_validate({**config.model_dump(), "views": views})
    model = DMESR(named, features.encoder_width, item_ids)
    centre_adapters(model, features, trained)
    return model


def centre_adapters(model: DMESR, features: ItemFeatures, positions_N: np.ndarray) -> None:
    """Tell each adapter the mean of its source over these items, or over enough of them, evenly spaced."""
    positions_N = positions_N[:: max(len(positions_N) // _ITEMS_FOR_MEAN, 1)]
    sources = list(features.select_views(model.config.views or ())[positions_N].T)
    if model.config.use_segments:
        sources.append(np.asarray(features.segment_index_NL[positions_N]).ravel())
    for adapter, rows in zip(model.items.adapters, sources, strict=True):
        distinct_R = np.unique(rows[rows != ABSENT])
        if len(distinct_R):
            assert isinstance(adapter, Adapter)
            adapter.centre(torch.from_numpy(np.asarray(features.vectors_UE[distinct_R])))
