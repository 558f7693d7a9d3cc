"""A trained model as a folder: safetensors weights, JSON config, id map, generated model card. No pickles.

`DMESR.save_pretrained`, `DMESR.from_pretrained` and `DMESR.push_to_hub` come from huggingface_hub's mixin and end here.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
ITEM_IDS = "item_ids.json"
CARD = "README.md"
CARD_MARK = "<!-- Written anew by each save; without this line it stays as it is. -->"


def write_model(model: nn.Module, config: dict[str, Any], item_ids: tuple[str, ...], folder: Path) -> None:
    """Write weights, config and id map into an existing folder, and clear the way for the card of this model."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    (folder / ITEM_IDS).write_text(json.dumps(item_ids))
    card = folder / CARD
    if card.exists() and CARD_MARK in card.read_text(encoding="utf-8"):  # the mixin leaves a card that is there
        card.unlink()


def read_settings(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(config, item ids) of a model folder."""
    return json.loads((folder / CONFIG).read_text()), tuple(json.loads((folder / ITEM_IDS).read_text()))


def read_weights(model: nn.Module, folder: Path) -> None:
    """Load the weights into a model of the same config; raises RuntimeError with the remedy and what does not fit."""
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise RuntimeError(
            f"{folder / WEIGHTS} was saved by another version of the model, or isn't that of {CONFIG} beside it; "
            f"train it again. {error}"
        ) from error


def check_location(model_id: str | Path) -> None:
    """Raises FileNotFoundError for what is neither a local folder nor shaped like a hub id."""
    if Path(model_id).is_dir():
        return
    try:
        validate_repo_id(model_id)  # type: ignore[arg-type]  # it refuses a Path, too
    except HFValidationError as error:
        raise FileNotFoundError(
            f"{model_id} is no folder of a model; give the one that training or save_pretrained wrote, which holds "
            f"{WEIGHTS}, or a hub id like team/name"
        ) from error


def fetch_model(
    model_id: str, revision: str | None, cache_dir: str | Path | None, force: bool, local_only: bool, token: Any
) -> Path:
    """The folder of a model: itself where it is a local folder, else downloaded from the hub."""
    if Path(model_id).is_dir():
        return Path(model_id)
    paths = [
        hf_hub_download(
            repo_id=model_id,
            filename=name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force,
            local_files_only=local_only,
            token=token,
        )
        for name in (WEIGHTS, CONFIG, ITEM_IDS)
    ]
    return Path(paths[0]).parent


MODEL_CARD = """---
{{ card_data }}
---

# {{ title }}

{% if reads_text -%}
A sequential recommender of the DMESR design (arXiv 2602.13715: dual-view MLLM-based enhancing framework for multimodal
sequential recommendation), as this project implements it; what the paper's abstract leaves open is this project's own
choice.
{%- else -%}
A sequential recommender of item IDs alone, as a baseline for the DMESR design (arXiv 2602.13715). It reads no texts.
{% endif %}
It scores an item for a user by the inner product of their vectors.

| | |
| --- | --- |
{% for name, value in facts %}| {{ name }} | {{ value }} |
{% endfor %}
```python
from pathlib import Path
from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.features import ItemFeatures
from dmesr_model.model import DMESR
from dmesr_model.sequences import Sequences

model = DMESR.from_pretrained("this folder or its hub id")
items_ND = encode_items(model, ItemFeatures.open(Path("features")))
users_UD = encode_sequences(model, items_ND, Sequences.open(Path("sequences")))
```

{% if reads_text -%}
Text vectors must come from the same encoder, with the same settings, as in training.
{% endif %}
`item_ids.json` lists the items that training saw.
{%- if not reads_text %} All others are one unknown item.
{%- elif has_ids %} Other items are scored from their content.
{%- else %} These and others are scored from their content alone.
{%- endif %}

{{ mark }}
"""
