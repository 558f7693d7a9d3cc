"""Finished runs of model_quality.py and its peer: `runs/DATASET.jsonl`, one line a run, kept so that a table can be
printed again, and extended, without training.

They are of the model as it is in the tree: whoever changes what it learns, or its recipe, deletes them. A line holds
where each user's test target was ranked, as `users_by_rank`: for ranks 1 to 10 the indices of the users. The peers'
environments import this file too: it needs numpy alone.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CUT = 10
FOLDER = Path(__file__).parent / "runs"
Run = dict[str, Any]


def append_run(folder: Path, dataset: str, run: Mapping[str, object], rank_U: np.ndarray) -> None:
    """Add a finished run; `rank_U` [U] counts from 1. In one write, as other processes may be adding theirs."""
    users_by_rank = [np.flatnonzero(rank_U == rank).tolist() for rank in range(1, CUT + 1)]
    line = json.dumps({**run, "users": len(rank_U), "users_by_rank": users_by_rank}) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / f"{dataset}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read_runs(folder: Path, dataset: str) -> list[Run]:
    """Every finished run of a dataset, with `per_user` [U]: NDCG@10 of each user."""
    path = folder / f"{dataset}.jsonl"
    runs: list[Run] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for run in runs:
        rank_U = np.full(run["users"], CUT + 1)
        for rank, users in enumerate(run.pop("users_by_rank"), start=1):
            rank_U[users] = rank
        run["per_user"] = ndcg(rank_U)
    return runs


def ndcg(rank_U: np.ndarray) -> np.ndarray:
    """NDCG@10 of each user, [U], from the rank of its one target, which counts from 1."""
    return np.where(rank_U <= CUT, 1 / np.log2(1 + rank_U), 0.0)
