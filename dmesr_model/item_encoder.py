"""Item vectors: adapters, fusion of coarse views with the item's own text, and the item's ID embedding."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dmesr_model.adapters import Adapter, SourceRows
from dmesr_model.attention import LayerScale
from dmesr_model.fusion import AttentionPool, ItemFusion
from dmesr_model.item_batches import UNKNOWN_ROW, ItemBatch
from dmesr_model.model_config import ModelConfig


@dataclass(frozen=True)
class ItemTokens:
    """N encoded items.

    Args:
        streams_SND: one vector an item and stream. With separate streams S is 2 (g, e), else 1.
        coarse_NVD: the adapted coarse views before fusion, what alignment acts on; V is 0 without coarse views.
    """

    streams_SND: Tensor
    coarse_NVD: Tensor


class ItemIdentity(nn.Module):
    """ID embeddings as wide as a served vector, a part for each stream, with a row for the unknown item.

    With dropout, an item's ID is replaced by the unknown one in training, which so learns to stand for any item.
    Without dropout the unknown item gets the mean of all trained rows.

    Args:
        corrects_content: it is added to content, or joined with it, and starts at nothing: events decide how far an
            item departs from what its content says.
    """

    def __init__(
        self, trained_items: int, streams: int, stream_width: int, dropout: float, corrects_content: bool
    ) -> None:
        super().__init__()
        self.streams = streams
        self.dropout = dropout
        self.corrects_content = corrects_content
        self.table = nn.Embedding(trained_items + 1, streams * stream_width)

    def forward(self, id_row_N: Tensor, has_unknown: bool) -> Tensor:
        """[S, N, D]."""
        return self._look_up(id_row_N, has_unknown).unflatten(-1, (self.streams, -1)).transpose(0, 1)

    def _look_up(self, id_row_N: Tensor, has_unknown: bool) -> Tensor:
        """[N, S · D]."""
        if self.dropout > 0:
            if self.training:
                dropped_N = torch.rand(id_row_N.shape, device=id_row_N.device) < self.dropout
                id_row_N = id_row_N.masked_fill(dropped_N, UNKNOWN_ROW)
            return self.table(id_row_N)
        id_NW = self.table(id_row_N)
        if not has_unknown:
            return id_NW
        mean_W = self.table.weight[UNKNOWN_ROW + 1 :].detach().mean(dim=0)
        return torch.where((id_row_N == UNKNOWN_ROW)[:, None], mean_W, id_NW)


class ItemEncoder(nn.Module):
    """Encodes the items of a step once; positions and scores reuse the result.

    Args:
        config: with `views` named, not None; "sequence" fusion only pools each side here.
        encoder_width: E, numbers of a text vector.
        trained_items: items with a row of their own in the ID table.
    """

    def __init__(self, config: ModelConfig, encoder_width: int, trained_items: int) -> None:
        super().__init__()
        self.width = config.stream_width
        self.view_count = len(config.views or ())
        self.adapters = nn.ModuleList(
            Adapter(encoder_width, config.adapter_width, self.width, config.dropout, config.input_dropout)
            for _ in range(self.view_count + config.use_segments)
        )
        self.pools = nn.ModuleList(
            AttentionPool(self.width) for _ in range((self.view_count > 0) + config.use_segments)
        )
        self.fusion: ItemFusion | None = None
        if config.fusion == "item" and config.has_both_sides:
            self.fusion = ItemFusion(self.width, config.heads, config.fusion_feedforward_multiple, config.dropout)
        self.fine_scale = LayerScale(self.width) if config.has_both_sides and config.stream_count == 1 else None
        has_content = len(self.pools) > 0
        self.identity: ItemIdentity | None = None
        if config.id_mode != "none":
            self.identity = ItemIdentity(trained_items, config.stream_count, self.width, config.id_dropout, has_content)
        concatenated = config.id_mode == "concatenated" and has_content
        self.joint = nn.Linear(2 * self.width, self.width) if concatenated else None

    def forward(self, items: ItemBatch) -> ItemTokens:
        coarse_NVD = self.adapt_views(items)
        contents = self._encode_content(coarse_NVD, items.segments)
        if self.identity is None:
            return ItemTokens(torch.stack(contents), coarse_NVD)
        ids_SND = self.identity(items.id_row_N, items.has_unknown)
        if not contents:
            return ItemTokens(ids_SND, coarse_NVD)
        joined = [self._join(content_ND, id_ND) for content_ND, id_ND in zip(contents, ids_SND, strict=True)]
        return ItemTokens(torch.stack(joined), coarse_NVD)

    def adapt_views(self, items: ItemBatch) -> Tensor:
        """Coarse tokens H [N, V, D]."""
        if self.view_count == 0:
            return torch.zeros(len(items.id_row_N), 0, self.width, device=items.id_row_N.device)
        views = [adapter(rows) for adapter, rows in zip(self.adapters, items.coarse, strict=False)]
        return torch.cat(views, dim=1)

    def adapt_segments(self, segments: SourceRows) -> tuple[Tensor, Tensor]:
        """Fine tokens F [N, L, D] and which to look at [N, L]; an item without text shows its one learned token."""
        fine_NLD = self.adapters[self.view_count](segments)
        no_text_N = ~segments.present_NK.any(dim=1)
        first_L = torch.arange(fine_NLD.shape[1], device=fine_NLD.device) == 0
        return fine_NLD, segments.present_NK | (no_text_N[:, None] & first_L)

    def _encode_content(self, coarse_NVD: Tensor, segments: SourceRows | None) -> list[Tensor]:
        """The streams' content vectors, each [N, D]."""
        sides = []
        if self.view_count:
            sides.append((coarse_NVD, torch.ones(coarse_NVD.shape[:2], dtype=torch.bool, device=coarse_NVD.device)))
        if segments is not None:
            sides.append(self.adapt_segments(segments))
        if self.fusion is not None:
            (coarse_NVD, coarse_visible_NV), (fine_NLD, fine_visible_NL) = sides
            coarse_NVD, fine_NLD = self.fusion(coarse_NVD, fine_NLD, fine_visible_NL)
            sides = [(coarse_NVD, coarse_visible_NV), (fine_NLD, fine_visible_NL)]
        pooled = [pool(tokens, visible) for pool, (tokens, visible) in zip(self.pools, sides, strict=True)]
        if self.fine_scale is None:
            return pooled
        coarse_ND, fine_ND = pooled
        return [coarse_ND + self.fine_scale(fine_ND)]  # docs/decisions/model-joined-streams.md

    def _join(self, content_ND: Tensor, id_ND: Tensor) -> Tensor:
        if self.joint is not None:
            return self.joint(torch.cat([content_ND, id_ND], dim=-1))
        return content_ND + id_ND
