"""What is evaluated: item vectors and user vectors whose inner product is the score; models and baselines alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors import SafetensorError

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, select_users
from tasks.evaluation.content import ContentVectors, mean_of_histories
from tasks.stage import StageError

if TYPE_CHECKING:
    from dmesr_model.model import DMESR

Baseline = Literal["popularity", "content"]


@dataclass(frozen=True)
class Scorer:
    """Vectors to rank by.

    Args:
        items_ND: float32, one row an item.
        users: from positions of users [B] to their vectors float32 [B, D]; asked block by block.
    """

    items_ND: np.ndarray
    users: Callable[[np.ndarray], np.ndarray]


class UnreadableModelError(StageError):
    """A model that this version of the project can't load."""


def load_model(checkpoint: Path) -> "DMESR":
    """Raises UnreadableModelError where an earlier version saved it, or its files are damaged."""
    from dmesr_model.model import DMESR

    try:
        return DMESR.from_pretrained(checkpoint)
    except (RuntimeError, ValueError, LookupError, TypeError, OSError, SafetensorError) as error:
        raise UnreadableModelError(
            f"{checkpoint} can't be loaded, {type(error).__name__}: {error}; train it again, or let another model "
            "serve (`dmesr models`, `dmesr promote MODEL`)"
        ) from error


def model_scorer(checkpoint: Path, features: ItemFeatures, histories: Sequences) -> Scorer:
    """A trained model, on a GPU where there is one. Raises UnreadableModelError."""
    import torch

    from dmesr_model.encoding import encode_items, encode_sequences

    model = load_model(checkpoint)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    items_ND = encode_items(model, features)
    return Scorer(items_ND, lambda users_B: encode_sequences(model, items_ND, select_users(histories, users_B)))


def popularity_scorer(events_N: np.ndarray) -> Scorer:
    """Every user gets the items with the most training events."""
    items_N1 = events_N[:, None].astype(np.float32)
    return Scorer(items_N1, lambda users_B: np.ones((len(users_B), 1), dtype=np.float32))


def content_scorer(features: ItemFeatures, histories: Sequences) -> Scorer:
    """A user gets the items whose texts are most like the mean of the history's; knows nothing of other users."""
    items_NE = ContentVectors(features).all()
    return Scorer(items_NE, lambda users_B: mean_of_histories(items_NE, select_users(histories, users_B)))
