"""DMESR: item encoder and sequence encoder, scored by an inner product."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dmesr_model.backbones import Backbone, BackboneName, BERT4Rec, GRU4Rec, PositionEmbedding, Positions, SASRec
from dmesr_model.fusion import SequenceFusion
from dmesr_model.initial_weights import INITIAL_STD, draw_initial_weights
from dmesr_model.item_batches import ItemBatch
from dmesr_model.item_encoder import FusionLevel, IdMode, ItemEncoder, ItemTokens
from dmesr_model.pretrained import MODEL_CARD, fetch_model, read_settings, read_weights, write_model

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class ModelConfig(BaseModel):
    """What the model is made of. Every ablation of the design is a value here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = Field(
        default="sasrec", description="Sequence encoder; SASRec trains fastest per epoch on a CPU."
    )
    views: tuple[str, ...] | None = Field(
        default=None, description="Coarse views to read, by name; None reads all that the features hold, () reads none."
    )
    use_segments: bool = Field(
        default=True, description="Read the items' own text, segment by segment (fine semantics)."
    )
    fusion: FusionLevel = Field(
        default="item", description="Where coarse and fine meet: tokens of an item, the views' sequences, or nowhere."
    )
    id_mode: IdMode = Field(
        default="added", description="How an ID embedding joins; 'none' scores unseen items like any other."
    )
    id_dropout: Share = Field(
        default=0.1, description="Share of a step's items whose ID is hidden, so that unseen items work."
    )
    alignment_weight: float = Field(
        default=0.1, ge=0, description="α of loss = next item + α · alignment; 0 switches it off."
    )
    alignment_temperature: float = Field(default=0.1, gt=0, description="Start of the learnable InfoNCE temperature.")
    width: Count = Field(
        default=64, description="d, numbers a token; the served vector is twice as wide with two streams."
    )
    adapter_width: Count = Field(
        default=128, description="h, hidden numbers of an adapter, between encoder width and d."
    )
    layers: Count = Field(default=2, description="Blocks of the backbone.")
    heads: Count = Field(default=2, description="Attention heads, in the backbone and in fusion; divides the width.")
    feedforward_multiple: Count = Field(
        default=1, description="Hidden width of a feed-forward layer, in multiples of d."
    )
    positions: Positions = Field(
        default="from_end", description="What a position embedding counts from; GRU4Rec has none."
    )
    dropout: Share = Field(default=0.3, description="Share of activations zeroed in training; small logs need much.")
    max_length: int = Field(
        default=100, ge=2, description="T, the most recent events a sequence keeps; attention grows as T²."
    )

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.views == () and not self.use_segments and self.id_mode == "none":
            raise ValueError("nothing to encode an item from: give views, use_segments or an id_mode")
        return self


class DMESR(nn.Module, ModelHubMixin):
    """Dual-view sequential recommender.

    Args:
        config: with `views` named, not None.
        encoder_width: E, numbers of a text vector.
        item_ids: the items that training saw, which have an ID embedding of their own.
    """

    def __init__(self, config: ModelConfig, encoder_width: int, item_ids: Sequence[str]) -> None:
        super().__init__()
        if config.views is None:
            raise ValueError("name the coarse views in ModelConfig.views before building the model")
        self.config = config
        self.encoder_width = encoder_width
        self.item_ids = tuple(item_ids)
        self.items = ItemEncoder(
            encoder_width=encoder_width,
            trained_items=len(self.item_ids),
            view_count=len(config.views),
            use_segments=config.use_segments,
            id_mode=config.id_mode,
            id_dropout=config.id_dropout,
            fusion=config.fusion,
            width=config.width,
            adapter_width=config.adapter_width,
            heads=config.heads,
            multiple=config.feedforward_multiple,
            dropout=config.dropout,
        )
        fused_sequences = config.fusion == "sequence" and self.items.stream_count == 2
        self.sequence_fusion = (
            SequenceFusion(config.width, config.heads, config.feedforward_multiple, config.dropout)
            if fused_sequences
            else None
        )
        self.backbone = build_backbone(config)
        self.mask_SD: nn.Parameter | None = None
        if not self.backbone.causal:
            self.mask_SD = nn.Parameter(torch.randn(self.items.stream_count, config.width) * INITIAL_STD)
        aligned = config.alignment_weight > 0 and len(config.views) > 1
        self.log_temperature = nn.Parameter(torch.tensor(config.alignment_temperature).log()) if aligned else None
        draw_initial_weights(self)

    @property
    def vector_width(self) -> int:
        """Numbers of a served vector: S streams of width d."""
        return self.items.stream_count * self.config.width

    @property
    def history_length(self) -> int:
        """Events of a history that count; BERT4Rec keeps one position for its mask."""
        return self.config.max_length - (self.mask_SD is not None)

    def encode_items(self, items: ItemBatch) -> ItemTokens:
        return self.items(items)

    def encode_sequences(self, tokens_SBTD: Tensor, valid_BT: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """User vectors after each position, [B, T, S·D].

        Args:
            tokens_SBTD: item vectors along the sequences, as `encode_items` made them.
            valid_BT: bool, False on padding, which stands on the right.
            masked_BT: bool, positions that BERT4Rec sees as masks; None for causal backbones.
        """
        if masked_BT is not None and self.mask_SD is not None:
            tokens_SBTD = torch.where(masked_BT[None, :, :, None], self.mask_SD[:, None, None, :], tokens_SBTD)
        scaled_SBTD = tokens_SBTD * self.config.width**0.5
        if self.sequence_fusion is not None:
            scaled_SBTD = self.sequence_fusion(scaled_SBTD, valid_BT, self.backbone.causal)
        streams = len(scaled_SBTD)
        hidden_BTD = self.backbone(scaled_SBTD.flatten(0, 1), valid_BT.repeat(streams, 1))
        return hidden_BTD.unflatten(0, (streams, -1)).permute(1, 2, 0, 3).flatten(start_dim=2)

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"model": self.config.model_dump(mode="json"), "encoder_width": self.encoder_width}
        write_model(self, config, self.item_ids, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> "DMESR":
        folder = fetch_model(model_id, revision, cache_dir, force_download, local_files_only, token)
        settings, item_ids = read_settings(folder)
        model = cls(ModelConfig(**settings["model"]), settings["encoder_width"], item_ids)
        read_weights(model, folder)
        return model.eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README.md of a saved model."""
        facts = [("items seen in training", len(self.item_ids)), ("text vector width", self.encoder_width)]
        card_data = ModelCardData(library_name="dmesr", license="apache-2.0", tags=["recommendation", "sequential"])
        return ModelCard.from_template(
            card_data,
            template_str=MODEL_CARD,
            title=f"DMESR-{self.config.backbone}",
            facts=[*facts, *self.config.model_dump().items()],
        )


def build_backbone(config: ModelConfig) -> Backbone:
    if config.backbone == "gru4rec":
        return GRU4Rec(config.width, config.layers, config.dropout)
    attention_backbone = SASRec if config.backbone == "sasrec" else BERT4Rec
    # BERT4Rec finds a mask's neighbours by position alone, so its positions start as long as the scaled item tokens.
    std = INITIAL_STD if config.backbone == "sasrec" else INITIAL_STD * config.width**0.5
    positions = PositionEmbedding(config.max_length, config.width, config.positions, std)
    return attention_backbone(
        config.width, config.layers, config.heads, config.feedforward_multiple, config.dropout, positions
    )
