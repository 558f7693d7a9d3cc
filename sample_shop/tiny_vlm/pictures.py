"""Training pictures: rendered once, kept as shards, as the model's image processor would see them."""

import io
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from sample_shop.attributes import Look, draw_look
from sample_shop.catalog import shop_jpeg

MODEL_PX = 128
SHARD_ROWS = 1000

logger = logging.getLogger(__name__)


def model_pixels(jpeg: bytes) -> np.ndarray:
    """What the image processor makes of a picture before it normalises it: uint8, [MODEL_PX, MODEL_PX, 3]."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.asarray(picture.convert("RGB").resize((MODEL_PX, MODEL_PX), Image.Resampling.LANCZOS))


def render_shards(folder: Path, pictures: int, seed: int, workers: int = 2) -> None:
    """Render the shards that `folder` lacks; a killed run goes on with the next call."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(-(-pictures // SHARD_ROWS)) if not _labels_path(folder, i).exists()]
    with ProcessPoolExecutor(workers) as pool:
        for done, shard in enumerate(pool.map(partial(_render_shard, folder, seed), missing), start=1):
            logger.info("rendered shard %d (%d of %d)", shard, done, len(missing))


def load_shards(folder: Path, pictures: int) -> tuple[np.ndarray, list[Look]]:
    """All training pictures (uint8, [N, MODEL_PX, MODEL_PX, 3]) and what each shows."""
    shards = range(-(-pictures // SHARD_ROWS))
    pixels_NHWC = np.concatenate([np.load(_pixels_path(folder, i)) for i in shards])
    labels = pl.concat([pl.read_parquet(_labels_path(folder, i)) for i in shards])
    return pixels_NHWC[:pictures], [Look(**row) for row in labels.head(pictures).iter_rows(named=True)]


def _render_shard(folder: Path, seed: int, shard: int) -> int:
    rendered = list(_rendered(np.random.default_rng([seed, shard])))
    np.save(_pixels_path(folder, shard), np.stack([pixels for pixels, _ in rendered]))
    pl.DataFrame([asdict(look) for _, look in rendered]).write_parquet(_labels_path(folder, shard))
    return shard


def _rendered(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Look]]:
    for _ in range(SHARD_ROWS):
        look = draw_look(rng)
        yield model_pixels(shop_jpeg(look, rng)), look


def _pixels_path(folder: Path, shard: int) -> Path:
    return folder / f"pixels-{shard:03d}.npy"


def _labels_path(folder: Path, shard: int) -> Path:
    return folder / f"looks-{shard:03d}.parquet"
