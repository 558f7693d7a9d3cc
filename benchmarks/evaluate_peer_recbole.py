"""Full ranking of the same vectors here and by RecBole's own full-sort evaluation, side by side.

python benchmarks/evaluate_peer_recbole.py --recbole-python ENV/bin/python --users 2000 --items 100000 --rounds 3

RecBole lives in an environment of its own (RecBole 1.2.1, Python 3.10, torch 2.5.1, NumPy 1.26). Its BPR scores by the
inner product of two embedding tables, which are overwritten with the vectors; `Trainer.evaluate` does the rest: scores,
leaving out the history, top-k, HR, NDCG and MRR at 5, 10, 20. Here the same is done by rank_among_all and the metrics.
Both sides run in turn, each in a process of its own; timed is the evaluation alone, not the loading.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_EVENTS = 20
_KS = (5, 10, 20)


def make_data(folder: Path, users: int, items: int, width: int) -> None:
    """Random vectors; a user's lies near that of the last item, so that the metrics are not all 0."""
    random = np.random.default_rng(0)
    items_ND = random.normal(size=(items, width)).astype(np.float32)
    histories = np.stack([random.choice(items, size=_EVENTS, replace=False) for _ in range(users)])
    users_UD = (0.35 * items_ND[histories[:, -1]] + random.normal(size=(users, width))).astype(np.float32)
    for name, array in (("items", items_ND), ("users", users_UD), ("histories", histories)):
        np.save(folder / f"{name}.npy", array)


def run_ours(folder: Path, block: int) -> dict[str, float]:
    from dmesr_model.sequences import Sequences, leave_one_out
    from storage.vector_index import VectorIndex
    from tasks.evaluation.measures import PER_USER
    from tasks.evaluation.protocols import HeldOutUsers, rank_among_all

    items_ND, users_UD, histories = (np.load(folder / f"{name}.npy") for name in ("items", "users", "histories"))
    sequences = Sequences.from_histories((histories + 1).tolist(), [str(user) for user in range(len(histories))])
    started = (time.monotonic(), time.process_time())
    users = HeldOutUsers.of(leave_one_out(sequences).test, len(items_ND))
    index = VectorIndex(items_ND)
    ranks = np.concatenate(
        [
            rank_among_all(index, items_ND, users_UD[users_B], users, users_B, max(_KS)).rank_B
            for users_B in users.blocks()
        ]
    )
    found = {f"{name}@{k}": float(gain(ranks, k).mean()) for name, gain in PER_USER.items() for k in _KS}
    return {**_took(*started), **found}


def run_recbole(folder: Path, block: int) -> dict[str, float]:
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    items_ND, users_UD, histories = (np.load(folder / f"{name}.npy") for name in ("items", "users", "histories"))
    _write_atomic_files(folder / "made", histories, len(items_ND))
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": {"valid": "full", "test": "full"},
        },
        "metrics": ["Hit", "NDCG", "MRR"],
        "topk": list(_KS),
        "valid_metric": "NDCG@10",
        "embedding_size": items_ND.shape[1],
        "eval_batch_size": block * (len(items_ND) + 1),
        "metric_decimal_place": 12,
        "show_progress": False,
        "use_gpu": False,
        "state": "ERROR",
    }
    config = Config(model="BPR", dataset="made", config_dict=settings)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = BPR(config, train.dataset)
    assert dataset.item_num == len(items_ND) + 1, "RecBole dropped items"
    with torch.no_grad():
        for embedding, field, vectors in (
            (model.user_embedding, "user_id", users_UD),
            (model.item_embedding, "item_id", items_ND),
        ):
            rows = dataset.field2id_token[field][1:].astype(np.int64)
            embedding.weight[1:] = torch.from_numpy(vectors[rows])
    trainer = Trainer(config, model)
    started = (time.monotonic(), time.process_time())
    result = trainer.evaluate(test, load_best_model=False)
    return {**_took(*started), **{name.replace("hit", "hr"): float(value) for name, value in result.items()}}


def _took(started: float, started_cpu: float) -> dict[str, float]:
    """Seconds by the clock, and of all cores' time, which tells more on a machine that others use."""
    return {"seconds": time.monotonic() - started, "cpu": time.process_time() - started_cpu}


def _write_atomic_files(folder: Path, histories: np.ndarray, items: int) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "made.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, history in enumerate(histories):
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(history))
    with (folder / "made.item").open("w") as file:
        file.write("item_id:token\n")
        file.writelines(f"{item}\n" for item in range(items))


def in_turn(arguments: argparse.Namespace, folder: Path) -> None:
    """Run both sides `rounds` times and print the seconds and their ratio."""
    pythons = {"ours": sys.executable, "recbole": arguments.recbole_python}
    seconds: dict[str, list[float]] = {side: [] for side in pythons}
    cpu: dict[str, list[float]] = {side: [] for side in pythons}
    for _ in range(arguments.rounds):
        results = {}
        for side, python in pythons.items():
            command = [python, __file__, "--side", side, "--folder", str(folder), "--block", str(arguments.block)]
            threads = {"OMP_NUM_THREADS": str(arguments.threads), "OMP_WAIT_POLICY": "passive"}
            root = str(Path(__file__).parents[1])
            environment = {**os.environ, **threads, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}
            output = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
            if output.returncode != 0:
                sys.exit(f"{side} failed:\n{output.stderr[-3000:]}")
            results[side] = json.loads(output.stdout.splitlines()[-1])
            seconds[side].append(results[side].pop("seconds"))
            cpu[side].append(results[side].pop("cpu"))
            spent = f"{seconds[side][-1]:.2f} s, {cpu[side][-1]:.2f} s of CPU"
            print(f"{side}: {spent}, peak {results[side].pop('peak_gib'):.2f} GiB", flush=True)
        gaps = [abs(results["ours"][name] - results["recbole"][name]) for name in results["ours"]]
        assert max(gaps) < 1e-6, results
    print(f"ndcg@10 {results['ours']['ndcg@10']:.6f} on both sides, all metrics within {max(gaps):.1e}")
    for what, times in (("by the clock", seconds), ("of CPU", cpu)):
        best = {side: min(times[side]) for side in pythons}
        print(f"best of {arguments.rounds} {what}: {best}, ratio {best['recbole'] / best['ours']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("users", 2000), ("items", 100_000), ("width", 128), ("rounds", 3), ("threads", 2), ("block", 256))
    for name, value in sizes:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--recbole-python", default="python", help="the interpreter of RecBole's environment")
    parser.add_argument("--side", choices=["ours", "recbole"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        found = {"ours": run_ours, "recbole": run_recbole}[arguments.side](arguments.folder, arguments.block)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**found, "peak_gib": peak}))
        return
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name), arguments.users, arguments.items, arguments.width)
        in_turn(arguments, Path(name))


if __name__ == "__main__":
    main()
