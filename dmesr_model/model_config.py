"""Settings of the model: its parts and their sizes. Every ablation of the design is a value here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BackboneName = Literal["sasrec", "bert4rec", "gru4rec"]
IdMode = Literal["none", "added", "concatenated"]
FusionLevel = Literal["item", "sequence", "none"]
Streams = Literal["joined", "separate"]
Positions = Literal["distance", "from_end"]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what the generators of PyTorch and of NumPy take

LOWEST_TEMPERATURE = 0.01
"""Below it a single negative decides the InfoNCE gradient; CLIP (Radford et al. 2021) stops there too."""


class ModelConfig(BaseModel):
    """What the model is made of."""

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
    streams: Streams = Field(
        default="joined",
        description="The coarse and the fine side of an item as one stream of full width, or as two that "
        "share the width and meet in the score alone; fusion of sequences needs two.",
    )
    id_mode: IdMode = Field(
        default="added", description="How an ID embedding joins; 'none' scores unseen items like any other."
    )
    id_dropout: Share = Field(
        default=0.1, description="Share of a step's items whose ID is hidden, so that unseen items work."
    )
    alignment_weight: float = Field(
        default=0.02, ge=0, description="α of loss = next item + α · alignment; 0 switches it off."
    )
    alignment_temperature: float = Field(
        default=0.1,
        ge=LOWEST_TEMPERATURE,
        description="Start of the learnable InfoNCE temperature, which falls no lower.",
    )
    width: Count = Field(
        default=64, description="Numbers of a served vector; of two streams each has half, d = width / 2."
    )
    adapter_width: Count = Field(
        default=128, description="h, hidden numbers of an adapter, between encoder width and d."
    )
    layers: Count = Field(default=2, description="Blocks of the backbone.")
    heads: Count = Field(default=2, description="Attention heads, in the backbone and in fusion; divides d.")
    feedforward_multiple: Count = Field(
        default=1, description="Hidden width of a feed-forward layer, in multiples of d."
    )
    fusion_feedforward_multiple: int = Field(
        default=0, ge=0, description="The same for the feed-forward layers of the fusion; 0: it has none."
    )
    positions: Positions = Field(
        default="distance",
        description="How attention knows the order: from the distance of two events, or, as in the papers, from "
        "position embeddings, numbered from the most recent event. GRU4Rec needs neither.",
    )
    dropout: Share = Field(default=0.3, description="Share of activations zeroed in training; small logs need much.")
    input_dropout: Share = Field(
        default=0.3,
        description="Share of a text vector's numbers zeroed in training, so that no item is learned by heart from its "
        "texts; 0.1 was better than 0 where texts are short titles.",
    )
    max_length: int = Field(
        default=100, ge=2, description="T, the most recent events a sequence keeps; attention grows as T²."
    )

    @property
    def has_both_sides(self) -> bool:
        """An item has coarse views and its own text."""
        return self.views != () and self.use_segments

    @property
    def stream_count(self) -> int:
        """Two views of a sequence where both sides have a stream of their own; else one."""
        return 2 if self.has_both_sides and (self.streams == "separate" or self.fusion == "sequence") else 1

    @property
    def stream_width(self) -> int:
        """d, numbers of a token."""
        return self.width // self.stream_count

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.stream_width * self.stream_count != self.width or self.stream_width % self.heads:
            streams = f"{self.stream_count} streams of {self.heads} heads"
            raise ValueError(f"width {self.width} is not divisible by {self.stream_count * self.heads}: {streams}")
        if len(set(self.views or ())) < len(self.views or ()):
            raise ValueError(f"views names one twice: {', '.join(self.views or ())}; name each view once")
        if self.views == () and not self.use_segments and self.id_mode == "none":
            raise ValueError("nothing to encode an item from: give views, use_segments or an id_mode")
        return self
