"""Accuracy of DMESR and its ablations: leave-one-out by time, full ranking, seen items filtered, ties pessimistic.

    python benchmarks/model_data.py DATA_FOLDER WORK_FOLDER
    python benchmarks/model_quality.py WORK_FOLDER/ml-100k --rows full plain_sum id_only --seeds 0 1 2
    python benchmarks/model_quality.py WORK_FOLDER/ml-100k --table

Each finished (row, seed) is kept under DATASET/quality and not run again. All rows share a recipe, see RECIPES;
early stopping is on validation NDCG@10. The paired test is Wilcoxon's signed-rank test over users, on each user's mean
NDCG@10 over the seeds that both rows have.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from dmesr_model.alignment import mean_squared_distance, uniformity
from dmesr_model.encoding import gatherer_for
from dmesr_model.explain import attention_entropy, segment_attention
from dmesr_model.features import ItemFeatures
from dmesr_model.metrics import hit_rate_at_k, ndcg_at_k
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.ranking import rank_targets
from dmesr_model.sequences import Sequences, leave_one_out
from dmesr_model.trainer import TrainConfig, fit

ID_ONLY = {"views": [], "use_segments": False, "id_dropout": 0.0}
ROWS: dict[str, dict[str, object]] = {
    "full": {},
    "plain_sum": {"views": ["text"], "use_segments": False, "fusion": "none", "id_dropout": 0.0},
    "id_only": ID_ONLY,
    "no_alignment": {"alignment_weight": 0.0},
    "no_fusion": {"fusion": "none"},
    "sequence_fusion": {"fusion": "sequence"},
    "no_original_text": {"use_segments": False},
    "text_view_alone": {"views": ["text"]},
    "joint_view_alone": {"views": ["joint"]},
    "no_id": {"id_mode": "none"},
    "gru4rec_full": {"backbone": "gru4rec"},
    "gru4rec_id_only": {"backbone": "gru4rec", **ID_ONLY},
    "bert4rec_full": {"backbone": "bert4rec"},
    "bert4rec_id_only": {"backbone": "bert4rec", **ID_ONLY},
}
RECIPES: dict[str, dict[str, object]] = {
    "ml-100k": {"max_epochs": 60, "patience": 6, "optimizer": {"learning_rate": 0.002}},
    "microlens-25k": {
        "max_epochs": 30,
        "patience": 3,
        "batch_size": 512,
        "optimizer": {"learning_rate": 0.002},
        "loss": {"kind": "sampled_softmax", "negatives": 1024},
    },
}


def measure(dataset: Path, row: str, seed: int) -> dict[str, object]:
    """Train one row with one seed; test accuracy, per-user NDCG@10, and what alignment and attention look like."""
    features, sequences = ItemFeatures.open(dataset / "features"), Sequences.open(dataset / "sequences")
    settings = {"max_length": 100 if dataset.name == "ml-100k" else 20, **ROWS[row]}
    settings = {"views": list(features.views), **settings}
    output = dataset / "quality" / f"{row}-{seed}"
    config = TrainConfig.model_validate({**RECIPES[dataset.name], "seed": seed})
    summary = fit(features, sequences, ModelConfig.model_validate(settings), config, output)
    model = DMESR.from_pretrained(output / "model")
    ranks = rank_targets(model, features, leave_one_out(sequences).test)
    shutil.rmtree(output / "checkpoints")
    return {
        "row": row,
        "seed": seed,
        "ndcg_at_10": float(ndcg_at_k(ranks, 10).mean()),
        "hr_at_10": float(hit_rate_at_k(ranks, 10).mean()),
        "validation": summary.validation_ndcg_at_10,
        "epochs": summary.epochs,
        "seconds": summary.seconds,
        "inside": look_inside(model, features),
        "per_user": ndcg_at_k(ranks, 10).tolist(),
    }


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


def print_table(results: list[dict], against: str) -> None:
    """One line a row: mean ± sd over seeds, and the paired comparison with one row."""
    print(f"| row | seeds | test NDCG@10 | test HR@10 | validation NDCG@10 | p against {against} | epochs | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    per_user = {(result["row"], result["seed"]): np.array(result["per_user"]) for result in results}
    for row in ROWS:
        mine = [result for result in results if result["row"] == row]
        if not mine:
            continue
        shared = [seed for name, seed in per_user if name == row and (against, seed) in per_user]
        p_value = "–"
        if row != against and shared:
            ours = np.mean([per_user[row, seed] for seed in shared], axis=0)
            theirs = np.mean([per_user[against, seed] for seed in shared], axis=0)
            p_value = f"{wilcoxon(ours, theirs).pvalue:.3f} ({ours.mean() - theirs.mean():+.4f})"
        columns = [spread(mine, name) for name in ("ndcg_at_10", "hr_at_10", "validation")]
        epochs, seconds = (np.mean([result[name] for result in mine]) for name in ("epochs", "seconds"))
        print(f"| {row} | {len(mine)} | {' | '.join(columns)} | {p_value} | {epochs:.0f} | {seconds:.0f} |")
    for result in results:
        if result["inside"]:
            inside = ", ".join(f"{name} {value:.3f}" for name, value in result["inside"].items())
            print(f"- {result['row']}, seed {result['seed']}: {inside}")


def spread(results: list[dict], name: str) -> str:
    values = np.array([result[name] for result in results])
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a folder that model_data.py wrote")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="print the table of all finished runs")
    parser.add_argument("--against", choices=ROWS, default="id_only")
    options = parser.parse_args()
    folder = options.dataset / "quality"
    folder.mkdir(exist_ok=True)
    for seed in options.seeds:
        for row in options.rows:
            path = folder / f"{row}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measure(options.dataset, row, seed)))
                print(path.name, {k: v for k, v in json.loads(path.read_text()).items() if k != "per_user"}, flush=True)
    if options.table:
        print_table([json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))], options.against)


if __name__ == "__main__":
    main()
