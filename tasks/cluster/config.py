"""Where a stage's workers run, and how its plan is dealt out to them."""

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """Workers on a Ray cluster, each with an engine (or encoder) of its own. Needs the extra `cluster`.

    The store, model folders and pictures must be reachable from every machine under the same names: shared or
    S3-compatible storage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field("auto", description="auto: the running cluster this machine is part of; local: one made here")
    workers: int = Field(1, ge=1, description="actors at a time, each with one engine")
    cpus: float = Field(1.0, ge=0, description="cores reserved for a worker; also its number of OpenMP threads")
    gpus: float = Field(0.0, ge=0, description="GPUs reserved for a worker; with tensor_parallel_size 2, give 2")
    shard: int = Field(2048, ge=1, description="rows handed to a worker at a time; it starts no other before they end")
    max_restarts: int = Field(10, ge=0, description="workers started in the place of lost ones before the stage ends")
