"""DMESR: item encoder and sequence encoder, scored by an inner product."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from torch import Tensor, nn

from dmesr_model.backbones import build_backbone
from dmesr_model.fusion import SequenceFusion
from dmesr_model.initial_weights import INITIAL_STD, draw_initial_weights, draw_open_attention, start_as_sum
from dmesr_model.item_batches import ItemBatch
from dmesr_model.item_encoder import ItemEncoder, ItemTokens
from dmesr_model.model_config import LOWEST_TEMPERATURE, ModelConfig
from dmesr_model.pretrained import (
    CARD_MARK,
    MODEL_CARD,
    check_location,
    fetch_model,
    read_settings,
    read_weights,
    write_model,
)


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
        self.item_ids = tuple(map(str, item_ids))
        self.items = ItemEncoder(config, encoder_width, len(self.item_ids))
        fused_sequences = config.fusion == "sequence" and config.stream_count == 2
        self.sequence_fusion = (
            SequenceFusion(config.stream_width, config.heads, config.fusion_feedforward_multiple, config.dropout)
            if fused_sequences
            else None
        )
        self.backbone = build_backbone(config)
        self.mask_SD: nn.Parameter | None = None
        if not self.backbone.causal:
            shape = (config.stream_count, config.stream_width)
            self.mask_SD = nn.Parameter(torch.randn(shape) * INITIAL_STD)
            self.last_mask_SD = nn.Parameter(torch.zeros(shape))  # added to a mask put last
        aligned = config.alignment_weight > 0 and len(config.views) > 1
        self.log_temperature = nn.Parameter(torch.tensor(config.alignment_temperature).log()) if aligned else None
        draw_initial_weights(self)
        if self.items.identity is not None and self.items.identity.corrects_content:
            nn.init.zeros_(self.items.identity.table.weight)
        if self.items.joint is not None:
            start_as_sum(self.items.joint)
        if not self.backbone.causal:
            draw_open_attention(self.backbone)

    @property
    def vector_width(self) -> int:
        """Numbers of a served vector: S streams of width d."""
        return self.config.width

    @property
    def history_length(self) -> int:
        """Events of a history that count; BERT4Rec keeps one position for its mask."""
        return self.config.max_length - (self.mask_SD is not None)

    @torch.no_grad()
    def bound_temperature(self) -> None:
        """After a step of the optimizer: lift InfoNCE's temperature to `LOWEST_TEMPERATURE` (Radford et al. 2021, 2.5).

        A bound inside the loss would take the gradient away from a temperature that has reached it.
        """
        if self.log_temperature is not None:
            self.log_temperature.clamp_(min=math.log(LOWEST_TEMPERATURE))

    def encode_items(self, items: ItemBatch) -> ItemTokens:
        return self.items(items)

    def encode_sequences(self, tokens_SBTD: Tensor, valid_BT: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """User vectors after each position, [B, T, S·D].

        Args:
            tokens_SBTD: item vectors along the sequences, as `encode_items` made them.
            valid_BT: bool, False on padding, which stands on the right.
            masked_BT: bool, positions that BERT4Rec sees as masks; None for causal backbones. A mask put last has a
                learned vector added: it asks what comes next, not what is missing (docs/decisions/model-last-mask.md).
        """
        if masked_BT is not None and self.mask_SD is not None:
            is_last_BT = torch.arange(valid_BT.shape[1], device=valid_BT.device) == valid_BT.sum(1, keepdim=True) - 1
            mask_SBTD = self.mask_SD[:, None, None] + is_last_BT[:, :, None] * self.last_mask_SD[:, None, None]
            tokens_SBTD = torch.where(masked_BT[:, :, None], mask_SBTD, tokens_SBTD)
        scaled_SBTD = tokens_SBTD * self.config.stream_width**0.5
        if self.sequence_fusion is not None:
            scaled_SBTD = self.sequence_fusion(scaled_SBTD, valid_BT, self.backbone.causal)
        streams = len(scaled_SBTD)
        hidden_BTD = self.backbone(scaled_SBTD.flatten(0, 1), valid_BT.repeat(streams, 1))
        return hidden_BTD.unflatten(0, (streams, -1)).permute(1, 2, 0, 3).flatten(start_dim=2)

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"model": self.config.model_dump(mode="json"), "encoder_width": self.encoder_width}
        write_model(self, config, self.item_ids, save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "DMESR":
        """A saved model, from a local folder or the hub; `options` are the mixin's.

        Raises:
            FileNotFoundError: it is neither a folder nor shaped like a hub id.
        """
        check_location(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, **options)

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
        reads_text = len(self.items.adapters) > 0
        facts = [("items seen in training", len(self.item_ids))]
        facts += [("text vector width", self.encoder_width)] if reads_text else []
        card_data = ModelCardData(library_name="dmesr", tags=["recommendation", "sequential"])
        return ModelCard.from_template(
            card_data,
            template_str=MODEL_CARD,
            title=f"DMESR-{self.config.backbone}",
            facts=[*facts, *self.config.model_dump().items()],
            reads_text=reads_text,
            has_ids=self.items.identity is not None,
            mark=CARD_MARK,
        )
