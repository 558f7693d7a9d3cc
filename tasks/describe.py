"""Describe: the model's answer for every item and view, from the picture, the item's own text, or both."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_of
from tasks.engines.endpoint import EndpointConfig
from tasks.engines.offline import OfflineConfig
from tasks.generation_keys import AskedView
from tasks.model_identity import model_digest
from tasks.prompt_files import load_prompts


class DescribeConfig(BaseModel):
    """Which model answers which prompts, and how the work is paced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder of a vision-language model, a hub id, or the name a server knows it by")
    revision: str | None = Field(
        None, description="commit of a hub id; for a server, any word that names what it serves"
    )
    prompts: tuple[str, ...] = Field(
        ("caption", "summary"), min_length=1, description="one prompt a view: a name in tasks/prompts, or a YAML path"
    )
    engine: Annotated[OfflineConfig | EndpointConfig, Field(discriminator="kind")] = OfflineConfig()
    max_pixels: int = Field(
        1_003_520, ge=784, description="pictures are scaled down to it; 1,280 patches of 28 x 28 px"
    )
    processor: dict[str, Any] = Field({}, description="settings for the model's picture processor, such as min_pixels")
    workers: int = Field(2, ge=1, description="threads that decode and scale pictures ahead of the engine")
    ahead: int = Field(64, ge=1, description="requests made ready beyond what the engine holds; bounds host memory")
    commit_seconds: float = Field(5.0, gt=0, description="answers are committed so often: what a kill can cost")
    max_attempts: int = Field(3, ge=1, description="runs that try an item again after its request failed")
    retry_failed: bool = Field(False, description="try failed requests again even beyond max_attempts")
    max_restarts: int = Field(5, ge=0, description="engine starts after the first in a run, before the stage gives up")
    max_failed_share: float = Field(
        0.5, gt=0, le=1, description="above this share of failed requests, after the first 100, the run stops"
    )


def asked_views(config: DescribeConfig) -> tuple[AskedView, ...]:
    """Return each prompt with the digest of the engine that answers it; picture settings bear on picture views only."""
    engine = _engine_identity(config)
    pictures = {**engine, "max_pixels": config.max_pixels, "processor": config.processor}
    return tuple(
        AskedView(prompt, digest_of(pictures if prompt.needs_picture else engine))
        for prompt in load_prompts(config.prompts)
    )


def _engine_identity(config: DescribeConfig) -> dict[str, object]:
    if isinstance(config.engine, EndpointConfig):
        return {"served": config.model, "revision": config.revision}
    return {"model": model_digest(config.model, config.revision), "dtype": config.engine.dtype}
