"""Accuracy of DMESR and its ablations: leave-one-out by time, full ranking, seen items filtered, ties pessimistic.

    python benchmarks/model_data.py WORK_FOLDER --data DATA_FOLDER --pipeline configs/sample_shop.yaml
    python benchmarks/model_quality.py WORK_FOLDER/ml-100k --search id_only plain_sum full --table
    python benchmarks/model_quality.py WORK_FOLDER/ml-100k --rows id_only plain_sum full no_alignment --table

`--search` trains a row with all seeds at every point of the grid of its dataset; `--rows` trains it at its best point,
by mean validation NDCG@10, of those that most seeds were trained at, and ablations at that of their full model. With
`--at`, as in `--at learning_rate=0.002 id_dropout=0`, rows are trained there: at the grid's first value of what it
doesn't name.

A finished run is a line of `runs/DATASET.jsonl` (`model_runs.py`; `--runs FOLDER` for others) and not run again;
RecTools' runs there are a row of the table. Early stopping is on validation NDCG@10. The paired test is Wilcoxon's
signed-rank test over users, on each user's mean NDCG@10 over the seeds that both rows have; its interval is a bootstrap
of users.
"""

import argparse
import shutil
import time
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path

import model_runs
import numpy as np
from model_runs import Run
from scipy.stats import wilcoxon

from dmesr_model.alignment import mean_squared_distance, uniformity
from dmesr_model.encoding import gatherer_for
from dmesr_model.explain import attention_entropy, segment_attention
from dmesr_model.features import ItemFeatures
from dmesr_model.metrics import hit_rate_at_k, ndcg_at_k
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.ranking import rank_targets
from dmesr_model.sequences import Sequences, Split, count_events, leave_one_out
from dmesr_model.trainer import TrainConfig, fit

ID_ONLY = {"views": [], "use_segments": False}
PLAIN_SUM = {"views": ["text"], "use_segments": False, "fusion": "none"}
ROWS: dict[str, dict[str, object]] = {
    "full": {},
    "plain_sum": PLAIN_SUM,
    "id_only": ID_ONLY,
    "no_alignment": {"alignment_weight": 0.0},
    "separate_streams": {"streams": "separate"},
    "no_fusion": {"fusion": "none"},
    "fusion_with_feed_forward": {"fusion_feedforward_multiple": 1},
    "sequence_fusion": {"fusion": "sequence"},
    "no_original_text": {"use_segments": False},
    "text_view_alone": {"views": ["text"]},
    "joint_view_alone": {"views": ["joint"]},
    "image_view_alone": {"views": ["image"]},
    "no_coarse_views": {"views": []},
    "no_id": {"id_mode": "none"},
    "embedded_positions": {"positions": "from_end"},
    "embedded_positions_id_only": {"positions": "from_end", **ID_ONLY},
    "gru4rec_full": {"backbone": "gru4rec"},
    "gru4rec_plain_sum": {"backbone": "gru4rec", **PLAIN_SUM},
    "gru4rec_id_only": {"backbone": "gru4rec", **ID_ONLY},
    "bert4rec_full": {"backbone": "bert4rec"},
    "bert4rec_plain_sum": {"backbone": "bert4rec", **PLAIN_SUM},
    "bert4rec_id_only": {"backbone": "bert4rec", **ID_ONLY},
}
SEARCHED = (
    *("full", "plain_sum", "id_only"),
    *("gru4rec_full", "gru4rec_plain_sum", "gru4rec_id_only"),
    *("bert4rec_full", "bert4rec_plain_sum", "bert4rec_id_only"),
)
ALL_ITEMS = 0  # in place of a number of negatives: full softmax
PEER = "rectools"  # runs of model_peer_rectools_quality.py
Point = dict[str, float]
GRIDS: dict[str, dict[str, list[float]]] = {
    "ml-100k": {"id_dropout": [0.1, 0.0], "learning_rate": [0.004, 0.002], "dropout": [0.3]},
    "microlens-25k": {
        "negatives": [2048, ALL_ITEMS],
        "id_dropout": [0.1, 0.0],
        "learning_rate": [0.002, 0.004],
        "dropout": [0.3, 0.2],
    },
    "sample_shop": {"id_dropout": [0.1, 0.0], "learning_rate": [0.004, 0.002], "dropout": [0.3]},
}
BATCHES = {"ml-100k": 128, "microlens-25k": 512, "sample_shop": 128}
# BERT4Rec learns from a fifth of the events a pass: it gets more and smaller steps.
BERT4REC_BATCHES = {**BATCHES, "ml-100k": 32, "sample_shop": 32}
BERT4REC_GRID: dict[str, list[float]] = {"id_dropout": [0.1, 0.0], "learning_rate": [0.002, 0.004], "dropout": [0.3]}
BERT4REC_PATIENCE = {"ml-100k": 10_000}  # steps, more than 200 passes have: docs/decisions/model-patience.md
LENGTHS = {"ml-100k": 100, "microlens-25k": 20, "sample_shop": 100}


def measure(dataset: Path, row: str, seed: int, point: Point) -> tuple[Run, np.ndarray]:
    """Train one row with one seed: its accuracy, what alignment and attention look like, and the test ranks [U].

    The model is left under DATASET/quality; a training that was killed goes on there.
    """
    features, sequences = ItemFeatures.open(dataset / "features"), Sequences.open(dataset / "sequences")
    settings: dict[str, object] = {
        "views": list(features.views),
        "max_length": LENGTHS[dataset.name],
        "id_dropout": point["id_dropout"],
        "dropout": point["dropout"],
        "input_dropout": point.get("input_dropout", 0.0),
        **ROWS[row],
    }
    batches = BERT4REC_BATCHES if row.startswith("bert4rec") else BATCHES
    config = TrainConfig.model_validate(
        {
            "batch_size": batches[dataset.name],
            "loss": loss_of(point),
            "seed": seed,
            "patience_steps": point["patience_steps"],
            "optimizer": {"learning_rate": point["learning_rate"]},
        }
    )
    output = dataset / "quality" / name_of(row, seed, point)
    resumed, started = output.exists(), time.process_time()
    summary = fit(features, sequences, ModelConfig.model_validate(settings), config, output)
    cpu_seconds = time.process_time() - started
    model = DMESR.from_pretrained(output / "model")
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    split = leave_one_out(sequences)
    rank_U = rank_targets(model, features, split.test)
    validation_rank_U = rank_targets(model, features, split.validation)
    run: Run = {
        "row": row,
        "seed": seed,
        "point": point,
        "ndcg_at_10": float(ndcg_at_k(rank_U, 10).mean()),
        "hr_at_10": float(hit_rate_at_k(rank_U, 10).mean()),
        "mean_log_rank": float(np.log(rank_U).mean()),
        "validation": summary.validation_ndcg_at_10,
        "validation_mean_log_rank": float(np.log(validation_rank_U).mean()),
        "epochs": summary.epochs,
        "best_epoch": summary.best_epoch + 1,
        "parameters": summary.parameters,
        "inside": look_inside(model, features),
    }
    if not resumed:
        run["cpu_seconds"] = cpu_seconds
    return run, rank_U


def loss_of(point: Point) -> dict[str, object]:
    """Sampled softmax with the point's negatives; full softmax where it has none, or ALL_ITEMS."""
    negatives = int(point.get("negatives", ALL_ITEMS))
    return {"kind": "softmax"} if negatives == ALL_ITEMS else {"kind": "sampled_softmax", "negatives": negatives}


def look_inside(model: DMESR, features: ItemFeatures) -> dict[str, float]:
    """Alignment and uniformity of the adapted views (Wang & Isola 2020), and entropy of attention to segments."""
    found = {}
    if len(model.config.views or ()) > 1:
        items = gatherer_for(model, features).gather(np.arange(features.item_count) + 1)
        coarse_NVD = model.items.adapt_views(items).detach()
        both = items.coarse[0].present_NK[:, 0] & items.coarse[1].present_NK[:, 0]
        found["distance_of_views"] = mean_squared_distance(coarse_NVD[both, 0], coarse_NVD[both, 1])
        found["uniformity"] = uniformity(coarse_NVD[both][:2000, 0])
    if model.items.fusion is not None:
        counts = (np.asarray(features.segment_index_NL) >= 0).sum(axis=1)
        entropy = attention_entropy(segment_attention(model, features, features.item_ids), counts)
        found["attention_entropy"] = float(entropy[counts > 1].mean())
    return found


def axes_of(dataset: Path, row: str) -> dict[str, list[float]]:
    """What is searched for a row, and its values."""
    axes, patience = GRIDS[dataset.name], TrainConfig().patience_steps
    if row.startswith("bert4rec"):
        axes, patience = axes | BERT4REC_GRID, BERT4REC_PATIENCE.get(dataset.name, patience)
    if not row.endswith("id_only"):
        axes = axes | {"input_dropout": [ModelConfig().input_dropout]}
    return axes | {"patience_steps": [patience]}


def grid_of(dataset: Path, row: str) -> list[Point]:
    """Every point that is searched for a row."""
    axes = axes_of(dataset, row)
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def name_of(row: str, seed: int, point: Point) -> str:
    return "-".join([row, *(f"{name}={value}" for name, value in point.items()), str(seed)])


class Runs:
    """Finished runs of a dataset, also those that other processes add meanwhile."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder, self.dataset = folder, dataset
        self.found = model_runs.read_runs(folder, dataset.name)

    def of(self, row: str, point: Point) -> dict[int, Run]:
        """Those of a row at a point, by seed."""
        return {run["seed"]: run for run in self.found if run["row"] == row and run["point"] == point}

    def of_peer(self) -> tuple[dict[int, Run], Point]:
        """RecTools' by seed, and their point: the one with the most seeds, then of best validation."""
        point = self.best_point(PEER, {})
        return self.of(PEER, point), point

    def best_point(self, row: str, otherwise: Point) -> Point:
        """Of the points with the most seeds that of best mean validation NDCG@10."""
        points = {tuple(run["point"].items()): run["point"] for run in self.found if run["row"] == row}
        return max(points.values(), key=lambda point: seeds_and_validation(self.of(row, point)), default=otherwise)

    def run_once(self, row: str, seed: int, point: Point) -> None:
        """Train, unless a run is at hand."""
        self.found = model_runs.read_runs(self.folder, self.dataset.name)
        if seed not in self.of(row, point):
            run, rank_U = measure(self.dataset, row, seed, point)
            model_runs.append_run(self.folder, self.dataset.name, run, rank_U)
            name = name_of(row, seed, point)
            print(f"{name}: validation {run['validation']:.4f}, {run['epochs']} epochs", flush=True)


def seeds_and_validation(runs: dict[int, Run]) -> tuple[int, float]:
    return len(runs), float(np.mean([run["validation"] for run in runs.values()] or [0.0]))


def paired(ours_U: np.ndarray, theirs_U: np.ndarray) -> str:
    """Mean difference, its 95 % interval over users, and Wilcoxon's p."""
    gap_U = ours_U - theirs_U
    draws = np.random.default_rng(0).integers(len(gap_U), size=(2000, len(gap_U)))
    low, high = np.quantile(gap_U[draws].mean(axis=1), [0.025, 0.975])
    p = wilcoxon(ours_U, theirs_U).pvalue
    return f"{gap_U.mean():+.4f} ({low:+.4f} to {high:+.4f}), p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"


def of_same_backbone(row: str, other: str) -> str:
    """`other` with the backbone of `row`, where there is such a row."""
    backbone = next((name for name in ("gru4rec_", "bert4rec_") if row.startswith(name)), "")
    return backbone + other if backbone + other in ROWS else other


def print_table(runs: Runs, against: list[str], at: Point | None) -> None:
    """One line a row: mean ± sd over seeds, and NDCG@10 minus that of other rows, those of its own backbone."""
    points = {row: point_of(runs, row, at) for row in ROWS}
    results = {row: runs.of(row, points[row]) for row in ROWS}
    results[PEER], points[PEER] = runs.of_peer()
    names = {
        "ndcg_at_10": "test NDCG@10",
        "hr_at_10": "test HR@10",
        "validation": "validation NDCG@10",
        "validation_mean_log_rank": "validation mean log rank",
    }
    header = ["row", "seeds", *names.values(), *(f"− {other}" for other in against), "epochs", "CPU s", "point"]
    print(f"| {' | '.join(header)} |\n{'| --- ' * len(header)}|")
    for row, mine in results.items():
        if not mine:
            continue
        cells = [spread(mine.values(), name) for name in names]
        for other in (of_same_backbone(row, name) for name in against):
            shared = sorted(mine.keys() & results[other].keys())
            if row == other or not shared:
                cells.append("–")
                continue
            both = ([found[seed]["per_user"] for seed in shared] for found in (mine, results[other]))
            cells.append(paired(*(np.mean(gain_SU, axis=0) for gain_SU in both)))
        cells += [mean(mine.values(), name) for name in ("epochs", "cpu_seconds")]
        cells.append(", ".join(f"{name} {value}" for name, value in points[row].items()))
        print(f"| {row} | {len(mine)} | {' | '.join(cells)} |")
    for row, mine in results.items():
        inside = {name: f"{np.mean([run['inside'][name] for run in mine.values()]):.3f}" for name in names_inside(mine)}
        if inside:
            print(f"- {row}: " + ", ".join(f"{name} {value}" for name, value in inside.items()))


def print_slices(runs: Runs, at: Point | None) -> None:
    """One line a row: test NDCG@10 by what training knew of the step to the target, and of the target."""
    slices = slices_of(leave_one_out(Sequences.open(runs.dataset / "sequences")))
    print("| row | seeds | " + " | ".join(f"{name} ({mask_H.sum()} users)" for name, mask_H in slices.items()) + " |")
    print("| --- " * (2 + len(slices)) + "|")
    for row in ROWS:
        mine = runs.of(row, point_of(runs, row, at))
        if mine:
            gains_H = np.mean([run["per_user"] for run in mine.values()], axis=0)
            cells = [f"{gains_H[mask_H].mean():.4f}" if mask_H.any() else "–" for mask_H in slices.values()]
            print(f"| {row} | {len(mine)} | {' | '.join(cells)} |")


def slices_of(split: Split) -> dict[str, np.ndarray]:
    """Users by test target, bool [H]: was the step from their last item to it met in training; how often was it met.

    The second in thirds of the users, fewer where many targets have as many events.
    """
    train, test = split.train, split.test
    histories = [train.history(user) for user in range(train.user_count)]
    steps = {step for history in histories for step in zip(history[:-1].tolist(), history[1:].tolist(), strict=True)}
    last_H = [int(test.histories.history(user)[-1]) for user in range(len(test.target_index_H))]
    met_H = np.array([step in steps for step in zip(last_H, test.target_index_H.tolist(), strict=True)])
    events_H = count_events(train, int(test.target_index_H.max()))[test.target_index_H]
    known_H = events_H > 0
    slices = {"step met": met_H, "not met": ~met_H & known_H, "target never met": ~known_H}
    edges = np.unique([1, *np.quantile(events_H[known_H], [1 / 3, 2 / 3]).astype(int), events_H.max() + 1])
    for low, high in pairwise(edges):
        slices[f"target with {low} to {high - 1} events"] = (events_H >= low) & (events_H < high)
    return slices


def names_inside(runs: dict[int, Run]) -> list[str]:
    return list(next(iter(runs.values()))["inside"]) if runs else []


def point_of(runs: Runs, row: str, at: Point | None) -> Point:
    """`at`, with the first values of a row's axes where it names none; None: the best of the points of its runs.

    An ablation takes its full model's best.
    """
    if at is None:
        searched = row if row in SEARCHED else "full"
        return runs.best_point(searched, point_of(runs, searched, {}))
    return {name: type(values[0])(at.get(name, values[0])) for name, values in axes_of(runs.dataset, row).items()}


def setting(text: str) -> tuple[str, float]:
    """NAME=VALUE of an axis."""
    name, value = text.split("=")
    return name, float(value)


def mean(results: Iterable[Run], name: str) -> str:
    """Of those runs that have it: one that was killed and resumed has no CPU seconds."""
    values = [run[name] for run in results if name in run]
    return f"{np.mean(values):.0f}" if values else "–"


def spread(results: Iterable[Run], name: str) -> str:
    """Mean ± standard deviation, of those runs that have it: a peer ranks no further than the cut."""
    values = np.array([run[name] for run in results if name in run])
    if len(values) == 0:
        return "–"
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a folder that model_data.py wrote")
    parser.add_argument("--search", nargs="+", choices=SEARCHED, default=[])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="print the table of all finished runs")
    parser.add_argument("--slices", action="store_true", help="print accuracy by what training knew of the test target")
    parser.add_argument("--against", nargs="+", choices=[*ROWS, PEER], default=["id_only", "plain_sum"])
    parser.add_argument("--at", nargs="+", type=setting, metavar="NAME=VALUE", help="point of the rows and the table")
    parser.add_argument("--runs", type=Path, default=model_runs.FOLDER, help="where finished runs are kept")
    options = parser.parse_args()
    at = options.at and dict(options.at)
    axes = axes_of(options.dataset, "full").keys()
    if at and at.keys() - axes:
        parser.error(f"--at: {', '.join(sorted(at.keys() - axes))}; {options.dataset.name} has {', '.join(axes)}")
    runs = Runs(options.runs, options.dataset)
    for seed, row in product(options.seeds, options.search):
        for point in grid_of(options.dataset, row):
            runs.run_once(row, seed, point)
    for seed in options.seeds:
        for row in options.rows:
            runs.run_once(row, seed, point_of(runs, row, at))
    if options.table:
        runs = Runs(options.runs, options.dataset)
        print_table(runs, options.against, at)
    if options.slices:
        print_slices(runs, at)


if __name__ == "__main__":
    main()
