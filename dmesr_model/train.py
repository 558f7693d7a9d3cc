"""Trains one model in a process of its own: `python -m dmesr_model.train JOB.json`.

JOB.json names the folders `features`, `sequences` and `output`, and the two configs `model` and `train`; paths are
taken relative to the working directory. Progress goes to stderr and to `progress.jsonl` in the output folder, the
result to `summary.json` and `model/`. Exit code 0: trained, or trained before. A job that was killed resumes when run
again.
"""

import argparse
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from dmesr_model.features import ItemFeatures
from dmesr_model.model_config import ModelConfig
from dmesr_model.sequences import Sequences
from dmesr_model.trainer import TrainConfig, fit


class TrainJob(BaseModel):
    """One training run: where its data is, where its results go, and its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: Path = Field(description="Folder that ItemFeatures.save wrote.")
    sequences: Path = Field(description="Folder that Sequences.save wrote.")
    output: Path = Field(description="Folder for checkpoints and results; one job's own.")
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="JSON file with a TrainJob")
    job = TrainJob.model_validate_json(parser.parse_args().job.read_text())
    fit(ItemFeatures.open(job.features), Sequences.open(job.sequences), job.model, job.train, job.output)


if __name__ == "__main__":
    main()
