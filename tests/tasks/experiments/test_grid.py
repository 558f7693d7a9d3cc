import json
from pathlib import Path

import pytest
import yaml

from dmesr_model.features import ItemFeatures
from dmesr_model.model import ModelConfig
from dmesr_model.run_setup import build_model
from dmesr_model.sequences import Sequences
from flows.experiment_commands import experiment
from storage.schemas import RUNS
from tasks import train
from tasks.config import ConfigError
from tasks.experiments.config import load_experiment
from tasks.experiments.grid import Grid
from tasks.experiments.tables import experiment_table
from tasks.pipeline import stage_named
from tasks.stage import StageError

SMALL = {"width": 8, "adapter_width": 8, "layers": 1, "heads": 1, "max_length": 8}
EXPERIMENT = {
    "name": "try",
    "data": [{"config": "shop.yaml", "title": "Shop"}],
    "backbones": ["sasrec", "gru4rec"],
    "models": [
        {"name": "dmesr", "title": "DMESR", "model": SMALL},
        {"name": "id_only", "model": {**SMALL, "views": [], "use_segments": False}},
    ],
    "seeds": [0, 1],
    "train": {"max_epochs": 1},
    "metrics": ["hr@5", "ndcg@5"],
    "baselines": ["popularity"],
}


@pytest.fixture
def folder(lively_shop, tmp_path: Path) -> Path:
    """A folder with a pipeline's config over the hand-made shop, and an experiment's."""
    pipeline = {
        "name": "shop",
        "store": {"url": lively_shop.store.url},
        "work_folder": str(lively_shop.work_folder),
        "ingest": {"folder": "delivery"},
        "describe": {"model": "made/model"},
        "embed": {"model": "made/encoder"},
        "train": {"train": {"patience": 3}},
    }
    pipeline |= {"evaluate": {"negatives": 3}, "recommend": {}, "report": {}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(pipeline))
    return tmp_path


def write(folder: Path, **changes: object) -> Path:
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT | changes))
    return path


def grid_of(path: Path) -> Grid:
    wanted = load_experiment(path)
    return Grid.of(wanted, wanted.data[0])


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Stands in for the training process: notes the job, and leaves a model with the weights of its seed."""
    done: list[dict[str, object]] = []

    def pretend(model, threads, report) -> None:
        job = json.loads((model.folder / "job.json").read_text())
        features, events = ItemFeatures.open(Path(job["features"])), Sequences.open(Path(job["sequences"]))
        made = build_model(features, events, ModelConfig(**job["model"]), job["train"]["seed"])
        made.save_pretrained(model.checkpoint)
        summary = {"validation_ndcg_at_10": 0.1, "best_epoch": 0, "epochs": 1, "stopped_early": False, "seconds": 1.0}
        (model.folder / "summary.json").write_text(json.dumps(summary))
        done.append(job)

    monkeypatch.setattr(train, "train_in_child", pretend)
    return done


def test_a_grid_trains_each_cell_once_and_a_larger_one_only_what_is_new(folder: Path, jobs, monkeypatch) -> None:
    first = grid_of(write(folder))
    assert (first.plan().new, first.folder.name) == (8, "experiments")
    first.run(lambda progress: None)
    assert len(jobs) == 8
    assert {(job["model"]["backbone"], job["train"]["seed"]) for job in jobs} == {
        (backbone, seed) for backbone in ("sasrec", "gru4rec") for seed in (0, 1)
    }
    assert all(job["train"].items() >= {"patience": 3, "max_epochs": 1}.items() for job in jobs)
    again = grid_of(write(folder))
    again.run(lambda progress: None)
    assert len(jobs) == 8
    larger = grid_of(write(folder, seeds=[0, 1, 2], backbones=["sasrec"]))
    assert (larger.plan().new, larger.plan().up_to_date) == (2, 4)
    larger.run(lambda progress: None)
    assert (len(jobs), grid_of(write(folder)).plan().up_to_date) == (10, 8)  # nothing was deleted meanwhile
    stages = set(first.store.table(RUNS).read("stage")["stage"])
    assert stages == {"experiment_train", "experiment_evaluate"}  # a night's own costs stay apart


def test_a_pipeline_that_serves_from_all_events_is_tested_on_held_out_ones(folder: Path) -> None:
    path = write(folder)
    grid = grid_of(path)
    train = grid.pipeline.train.model_copy(update={"train": {**grid.pipeline.train.train, "split": "none"}})
    object.__setattr__(grid, "pipeline", grid.pipeline.model_copy(update={"train": train}))
    assert "split" not in grid._train.train


def test_a_stopped_grid_goes_on_where_it_was(folder: Path, jobs, monkeypatch) -> None:
    pretend = train.train_in_child

    def stop_at_the_third(model, threads, report) -> None:
        if len(jobs) == 2:
            raise KeyboardInterrupt
        pretend(model, threads, report)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_in_child", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            grid_of(write(folder)).run(lambda progress: None)
    assert grid_of(write(folder)).plan().new == 6
    grid_of(write(folder)).run(lambda progress: None)
    assert len(jobs) == 8


def test_the_table_has_a_group_a_backbone_and_the_baselines(folder: Path, jobs) -> None:
    wanted = load_experiment(write(folder))
    grid = Grid.of(wanted, wanted.data[0])
    grid.run(lambda progress: None)
    table = experiment_table(wanted, [grid])
    assert [(group.data, group.backbone) for group in table.groups] == [
        ("Shop", "SASRec"),
        ("Shop", "GRU4Rec"),
        ("Shop", "–"),
    ]
    assert [row.title for row in table.groups[0].rows] == ["DMESR", "id_only"]
    for group in table.groups[:2]:
        for column in range(2):
            numbers = [row.numbers[column] for row in group.rows]
            best = max(numbers, key=lambda number: number.cell.mean)
            assert best.place == 1
            assert {number.place for number in numbers} <= {1, 2}
            assert numbers[0].cell.deviation is not None and numbers[0].cell.users == 24
    results = grid.group("gru4rec")
    assert table.groups[1].rows[1].numbers[0].cell == results.cell("id_only", "full", "hr@5")
    assert "Mean ± standard deviation over 2 seeds." in table.notes


def test_maintenance_leaves_experiments_alone(folder: Path, jobs) -> None:
    grid = grid_of(write(folder, backbones=["sasrec"], seeds=[0]))
    grid.run(lambda progress: None)
    maintain = stage_named(grid.pipeline, "maintain")
    maintain.run(maintain.plan(), "run", lambda progress: None)
    assert grid.group("sasrec").variants == ["dmesr", "id_only"]
    assert grid.plan().to_do == 0


def test_new_events_train_every_cell_anew(folder: Path, lively_shop, jobs) -> None:
    one = {"backbones": ["sasrec"], "seeds": [0]}
    grid_of(write(folder, **one)).run(lambda progress: None)
    lively_shop.put_events(("u00", "i20", 9))  # too few for a night to train anew, too many for one table
    grown = grid_of(write(folder, **one))
    assert grown.plan().to_do == 2
    grown.run(lambda progress: None)
    assert len({job["sequences"] for job in jobs}) == 2
    assert grown.group("sasrec").variants == ["dmesr", "id_only"]


@pytest.mark.parametrize("more", [{}, {"cold_items": {"share": 0.25}}])
def test_a_night_that_commits_meanwhile_changes_nothing(
    more: dict[str, object], folder: Path, lively_shop, jobs, monkeypatch
) -> None:
    pretend = train.train_in_child

    def train_while_a_night_commits(model, threads, report) -> None:
        pretend(model, threads, report)
        lively_shop.put_events((f"new{len(jobs)}", "i20", 9), (f"new{len(jobs)}", "i22", 10), ("u00", "i20", 11))

    monkeypatch.setattr(train, "train_in_child", train_while_a_night_commits)
    wanted = load_experiment(write(folder, backbones=["sasrec"], seeds=[0], **more))
    grid = Grid.of(wanted, wanted.data[0])
    grid.plan()
    lively_shop.put_events(("before", "i20", 9), ("before", "i22", 10), ("before", "i24", 11))
    grid.run(lambda progress: None)
    lively_shop.put_events(("after", "i20", 9), ("after", "i22", 10), ("after", "i24", 11))
    table = experiment_table(wanted, [grid])
    assert all(number.cell.mean is not None for group in table.groups for row in group.rows for number in row.numbers)
    assert "Data: Shop 25 users, 147 events, 30 items." in table.notes
    assert len({job["sequences"] for job in jobs}) == 1
    assert grid.plan().to_do == 2  # the next experiment is of the new data


def test_cold_items_train_on_other_events(folder: Path, jobs) -> None:
    one = {"backbones": ["sasrec"], "seeds": [0]}
    grid_of(write(folder, **one)).run(lambda progress: None)
    cold = grid_of(write(folder, **one, cold_items={"share": 0.25}))
    assert cold.plan().new == 2
    cold.run(lambda progress: None)
    assert [job["train"].get("split") for job in jobs] == [None, None, "last_event", "last_event"]
    # A model that saw these items, or other ones held out, stands in for none.
    assert grid_of(write(folder, **one, cold_items={"share": 0.25, "seed": 1})).plan().to_do == 2
    assert jobs[0]["sequences"] != jobs[2]["sequences"] and jobs[0]["features"] == jobs[2]["features"]
    assert cold.group("sasrec").cell("dmesr", "full", "ndcg@5").users < 24


def test_the_command_writes_both_tables(folder: Path, jobs, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, backbones=["sasrec"], seeds=[0])
    experiment(path, folder / "out", plan=True)
    assert "2 models: 2 new" in capsys.readouterr().out and not (folder / "out").exists()
    experiment(path, folder / "out")
    said = capsys.readouterr().out
    assert "| Shop | SASRec | DMESR |" in said and str(folder / "out" / "table.tex") in said
    assert (folder / "out" / "table.md").read_text() in said
    assert r"\bottomrule" in (folder / "out" / "table.tex").read_text()


def test_an_approximate_index_is_said_with_its_recall(folder: Path, jobs) -> None:
    wanted = load_experiment(write(folder, backbones=["sasrec"], seeds=[0], index={"kind": "ivf"}))
    grid = Grid.of(wanted, wanted.data[0])
    grid.run(lambda progress: None)
    # 30 items are too few to approximate: the recall is 1.
    notes = experiment_table(wanted, [grid]).notes
    assert grid._evaluate.ks == (5, 10)  # compare finds evaluations by the latter
    assert notes[-1] == "Searched approximately (ivf); recall@5 against exact: 1.0000 or more."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ["auc"]}, "'auc' is not hr, ndcg or mrr"),
        ({"metrics": ["hr@05"]}, "'hr@05' is not hr, ndcg or mrr"),
        ({"seeds": [0, 0]}, "seeds: one stands there twice"),
        ({"metrics": ["hr@5", "hr@5"]}, "metrics: one stands there twice"),
        ({"data": [{"config": "shop.yaml"}] * 2}, "data: one stands there twice"),
        ({"train": {"seed": 3}}, "give seeds in seeds"),
        ({"models": [{"name": "a", "model": {"backbone": "sasrec"}}]}, "give backbones in backbones"),
        ({"seed": 1}, "seed: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_experiment_is_said(folder: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_experiment(write(folder, **changes))


def test_sampled_ranking_without_negatives_is_said_before_anything_is_trained(folder: Path) -> None:
    data = [{"config": "shop.yaml", "settings": ["evaluate.negatives=0"]}]
    with pytest.raises(StageError, match=r"needs evaluate\.negatives above 0"):
        grid_of(write(folder, data=data, protocol="sampled")).plan()


def test_no_data_is_said_with_the_remedy(folder: Path, lively_shop, tmp_path: Path) -> None:
    settings = [f"store.url={tmp_path / 'empty'}"]
    data = [{"config": "shop.yaml", "settings": settings}]
    with pytest.raises(StageError, match="has no user with enough events; run the pipeline first: dmesr run --config"):
        grid_of(write(folder, data=data)).plan()


def test_shipped_experiments_are_valid() -> None:
    configs = Path(__file__).parents[3] / "configs"
    for name in ("ablations.yaml", "cold_items.yaml"):
        wanted = load_experiment(configs / name)
        assert Grid.of(wanted, wanted.data[0]).title == "Sample shop"
