"""What a step needs to know of its items: their distinct text vectors, gathered from the memory-mapped table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmesr_model.adapters import SourceRows
from dmesr_model.features import ABSENT, ItemFeatures

UNKNOWN_ROW = 0
"""Row of the ID table for items that training never saw; the trained item at position p has row p + 1."""


@dataclass(frozen=True)
class ItemBatch:
    """N items to encode.

    Args:
        id_row_N: int64, rows of the ID table, UNKNOWN_ROW for an item that training never saw.
        coarse: one SourceRows for each coarse view the model reads, with one slot an item.
        segments: the items' own texts, or None where the model does not read them.
        has_unknown: whether any id_row_N is UNKNOWN_ROW; told here, so that nobody waits for a GPU to count them.
    """

    id_row_N: Tensor
    coarse: tuple[SourceRows, ...]
    segments: SourceRows | None
    has_unknown: bool

    def to(self, device: torch.device) -> "ItemBatch":
        segments = None if self.segments is None else self.segments.to(device)
        coarse = tuple(rows.to(device) for rows in self.coarse)
        return ItemBatch(self.id_row_N.to(device), coarse, segments, self.has_unknown)


class ItemGatherer:
    """Reads batches of items from features, for a model that reads these views and knows these item ids.

    Args:
        features: the items to read from; may hold others than the model was trained on.
        views: coarse views that the model reads.
        use_segments: whether the model reads the items' own texts.
        trained_item_ids: ids with a row of their own in the model's ID table; empty for a model without one.

    Vectors are read from the memory-mapped table, or from a copy of it on a device, see `keep_on`.
    """

    def __init__(
        self, features: ItemFeatures, views: tuple[str, ...], use_segments: bool, trained_item_ids: Sequence[str]
    ) -> None:
        self.features = features
        self.coarse_index_NV = features.select_views(views)
        self.use_segments = use_segments
        row_of = {item_id: position + 1 for position, item_id in enumerate(trained_item_ids)}
        self.id_row_N = np.array([row_of.get(item_id, UNKNOWN_ROW) for item_id in features.item_ids], dtype=np.int64)
        self._table_UE: Tensor | None = None

    def keep_on(self, device: torch.device) -> None:
        """Copy the whole table of text vectors, found finite, to a device; batches then hold vectors that are there."""
        table_UE = torch.empty(self.features.vectors_UE.shape, dtype=torch.float32, device=device)
        for start, block_RE in self.features.read_blocks():
            table_UE[start : start + len(block_RE)] = torch.from_numpy(np.array(block_RE))
        self._table_UE = table_UE

    def gather(self, item_index_N: np.ndarray) -> ItemBatch:
        """The items with these item_index (1-based). Raises ValueError naming an item with a NaN or infinite vector."""
        positions_N = item_index_N.astype(np.int64) - 1
        coarse_NV = self.coarse_index_NV[positions_N]
        coarse = tuple(self._read_source(coarse_NV[:, view : view + 1]) for view in range(coarse_NV.shape[1]))
        segments = self._read_segments(positions_N) if self.use_segments else None
        id_row_N = self.id_row_N[positions_N]
        return ItemBatch(torch.from_numpy(id_row_N), coarse, segments, bool((id_row_N == UNKNOWN_ROW).any()))

    def _read_segments(self, positions_N: np.ndarray) -> SourceRows:
        segment_NL = np.asarray(self.features.segment_index_NL[positions_N])
        used_L = np.flatnonzero((segment_NL != ABSENT).any(axis=0))
        longest = used_L[-1] + 1 if len(used_L) else 1
        if segment_NL.shape[1] == 0:
            segment_NL = np.full((len(positions_N), 1), ABSENT, dtype=np.int32)
        return self._read_source(segment_NL[:, :longest])

    def _read_source(self, index_NK: np.ndarray) -> SourceRows:
        present_NK = index_NK != ABSENT
        rows_R, inverse = np.unique(index_NK[present_NK], return_inverse=True)
        row_NK = np.zeros(index_NK.shape, dtype=np.int64)
        row_NK[present_NK] = inverse
        return SourceRows(
            vectors_RE=self._read_vectors(rows_R),
            row_NK=torch.from_numpy(row_NK),
            present_NK=torch.from_numpy(present_NK),
            text_id_NK=torch.from_numpy(index_NK.astype(np.int64)),
        )

    def _read_vectors(self, rows_R: np.ndarray) -> Tensor:
        if self._table_UE is not None:
            return self._table_UE[torch.from_numpy(rows_R).to(self._table_UE.device)]
        vectors_RE = np.asarray(self.features.vectors_UE[rows_R], dtype=np.float32)
        finite_R = np.isfinite(vectors_RE).all(axis=1)
        if not finite_R.all():
            self.features.raise_not_finite(int(rows_R[~finite_R][0]))
        return torch.from_numpy(vectors_RE)
