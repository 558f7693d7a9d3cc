"""vLLM in this process's own child: its settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class OfflineConfig(BaseModel):
    """vLLM's offline engine. Only `dtype` bears on the answers; the rest is room and speed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["offline"] = "offline"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="weights' type; auto: the model's"
    )
    max_model_len: int | None = Field(None, ge=16, description="longest prompt and answer in tokens; None: the model's")
    max_num_seqs: int | None = Field(None, ge=1, description="requests in one step; None: vLLM's choice")
    enforce_eager: bool = Field(False, description="no compilation: a faster start, slower steps on GPUs")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory the engine may take")
    kv_cache_gib: float | None = Field(
        None, gt=0, description="cache size; None: what memory allows. On CPUs whole GiB"
    )
    in_flight: int = Field(256, ge=1, description="requests handed to the engine ahead; bounds the pictures in memory")
    start_seconds: float = Field(1200.0, gt=0, description="longest wait for the engine to start")
    hang_seconds: float = Field(300.0, gt=0, description="no answer for so long, with requests under way: it hangs")
