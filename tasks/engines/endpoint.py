"""Any OpenAI-compatible server (a `vllm serve` elsewhere): its settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EndpointConfig(BaseModel):
    """A server that answers OpenAI's chat completions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(description="base address, such as http://localhost:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; never logged")
    concurrency: int = Field(32, ge=1, description="requests under way at a time")
    timeout_seconds: float = Field(120.0, gt=0, description="longest wait for one answer")
    retries: int = Field(5, ge=0, description="tries after the first, for overload, server errors and lost connections")
    first_wait_seconds: float = Field(0.5, gt=0, description="wait before the first retry; doubles, with jitter")
    longest_wait_seconds: float = Field(60.0, gt=0, description="cap of the waits, Retry-After included")
