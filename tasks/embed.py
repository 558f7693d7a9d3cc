"""Embed: a vector for every distinct text, the model's answers and the items' own segments alike."""

from pydantic import Field

from tasks.engines.sentence_encoder import EncoderConfig
from tasks.segments import SegmentConfig


class EmbedConfig(EncoderConfig):
    """The encoder, how the items' own text is cut, and how the work is paced."""

    segments: SegmentConfig = SegmentConfig()
    chunk: int = Field(4096, ge=1, description="texts sorted by length and committed together; bounds host memory")
