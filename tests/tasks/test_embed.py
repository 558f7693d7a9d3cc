"""The embed stage: each distinct text once, under its encoder, committed as it goes."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from storage.digests import digest_of_text
from storage.schemas import EMBEDDINGS, ITEMS, SEGMENTS
from storage.tables import Store
from storage.vectors import vectors_from_frame
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig, EmbedStage
from tasks.semantics import current_segments
from tasks.stage import StageError, Summary, run_stage

DESCRIBE = DescribeConfig(model="made/model")


class LengthEncoder:
    """A text's vector is (its length, 1)."""

    texts: list[str]

    def __init__(self, seconds: float = 0.0) -> None:
        self.texts = []
        self._seconds = seconds

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self._seconds)
        self.texts += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def put(store: Store, item_id: str, title: str | None, description: str | None = None) -> None:
    texts = {"title": title, "description": description}
    digests = {f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()}
    row = {"item_id": item_id, "active": True, **texts, **digests}
    schema = store.table(ITEMS).empty().schema
    store.table(ITEMS).upsert(pl.DataFrame([{name: row.get(name) for name in schema}], schema=schema))


def embed(store: Store, folder: Path, config: EmbedConfig | None = None) -> tuple[Summary, LengthEncoder]:
    encoder = LengthEncoder()
    stage = EmbedStage(config or EmbedConfig(), DESCRIBE, store, folder / "work", load=lambda _: encoder)
    return run_stage(stage, lambda progress: None), encoder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_equal_texts_are_embedded_once(store: Store, tmp_path: Path) -> None:
    put(store, "a", "Mug", "Blue. Round.")
    put(store, "b", "Mug", "Blue. Square.")
    summary, encoder = embed(store, tmp_path)
    assert sorted(encoder.texts) == ["Blue.", "Mug", "Round.", "Square."]
    assert summary.counts == {"up_to_date": 0, "done": 4, "cut": 2, "segment": 4}
    rows = store.table(EMBEDDINGS).read()
    assert rows["encoder_digest"].unique().to_list() == [EmbedConfig().encoder_digest]
    of = dict(zip(rows["text_digest"], vectors_from_frame(rows).tolist(), strict=True))
    assert of[digest_of_text("Round.")] == [6.0, 1.0]


def test_a_second_run_embeds_nothing_and_an_edit_only_what_is_new(store: Store, tmp_path: Path) -> None:
    put(store, "a", "Mug", "Blue. Round.")
    embed(store, tmp_path)
    assert embed(store, tmp_path)[0].counts == {"up_to_date": 3, "done": 0}
    put(store, "a", "Mug", "Blue. Heavy.")
    assert embed(store, tmp_path)[1].texts == ["Heavy."]
    put(store, "b", "Mug", "Heavy. Blue.")  # other order, other segments, but no new text
    summary, encoder = embed(store, tmp_path)
    assert (summary.counts["cut"], encoder.texts) == (1, [])


def test_usable_answers_are_embedded_and_others_are_not(hand_made_shop, tmp_path: Path) -> None:
    shop = hand_made_shop
    shop.put_item("a", "Mug", picture="p")
    shop.put_answer("a", "image", "A blue mug")
    shop.put_answer("a", "text", "mug mug mug", status="repeating")
    encoder = LengthEncoder()
    stage = EmbedStage(shop.embed, shop.describe, shop.store, tmp_path / "work", load=lambda _: encoder)
    summary = run_stage(stage, lambda progress: None)
    assert sorted(encoder.texts) == ["A blue mug", "Mug"]
    assert (summary.counts["image"], summary.counts["segment"]) == (1, 1)


def test_a_vector_that_is_not_finite_is_never_stored(store: Store, tmp_path: Path) -> None:
    class Overflowing(LengthEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.where(np.array([text == "Blue." for text in texts])[:, None], np.nan, super().encode(texts))

    put(store, "a", "Mug", "Blue. Round.")
    stage = EmbedStage(EmbedConfig(batch=1), DESCRIBE, store, tmp_path / "work", load=lambda _: Overflowing())
    with pytest.raises(StageError, match=r"NaN or infinity for the text 'Blue\.'.*embed.dtype: float32"):
        run_stage(stage, lambda progress: None)
    assert digest_of_text("Blue.") not in store.table(EMBEDDINGS).read()["text_digest"].to_list()
    assert embed(store, tmp_path)[1].texts.count("Blue.") == 1


def test_a_stored_vector_that_is_not_finite_is_made_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.tables._KEYS_AT_ONCE", 2)
    put(store, "a", "Mug", "Blue. Round. Heavy.")
    embed(store, tmp_path)
    table, bad = store.table(EMBEDDINGS), {"Mug": [np.nan, 1.0], "Blue.": [1.0, -np.inf], "Heavy.": None}
    of = {digest_of_text(text): vector for text, vector in bad.items()}
    rows = [{**row, "vector": of.get(row["text_digest"], row["vector"])} for row in table.read().to_dicts()]
    table.upsert(pl.DataFrame(rows, schema=table.empty().schema))
    (tmp_path / "work" / "sound_vectors.json").unlink(missing_ok=True)  # an earlier version noted nothing
    stale = [tmp_path / "work" / place / "of these vectors" for place in ("features", "experiments/features")]
    for folder in stale:
        folder.mkdir(parents=True)
    summary, encoder = embed(store, tmp_path)
    assert (sorted(encoder.texts), summary.counts["up_to_date"]) == (sorted(bad), 1)
    assert not any(folder.exists() for folder in stale)
    assert np.isfinite(vectors_from_frame(table.read())).all() and table.count() == 4
    assert embed(store, tmp_path)[0].counts == {"up_to_date": 4, "done": 0}


def test_the_texts_are_read_once_however_small_the_chunks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(number: int, chunk: int) -> int:
        put(store, f"{number}", f"Item {number}", " ".join(f"Sentence {number} {j}." for j in range(7)))
        plans: list[pl.LazyFrame] = []
        collect = pl.LazyFrame.collect
        with monkeypatch.context() as patch:
            patch.setattr(pl.LazyFrame, "collect", lambda frame, **how: (plans.append(frame), collect(frame, **how))[1])
            _, encoder = embed(store, tmp_path, EmbedConfig(chunk=chunk))
        assert len(encoder.texts) == 8
        return sum(f"{store.url}/segments" in frame.explain() for frame in plans)

    reads(0, chunk=8)
    assert reads(1, chunk=1) == reads(2, chunk=8)


def test_another_encoder_embeds_again_beside_the_first(store: Store, tmp_path: Path) -> None:
    put(store, "a", "Mug")
    embed(store, tmp_path)
    embed(store, tmp_path, EmbedConfig(normalize=False))
    assert store.table(EMBEDDINGS).count() == 2


def test_blank_text_has_no_segments_and_is_not_cut_again(store: Store, tmp_path: Path) -> None:
    put(store, "a", " \u2009 ")
    assert embed(store, tmp_path)[0].counts["done"] == 0
    assert embed(store, tmp_path)[0].counts == {"up_to_date": 0, "done": 0}
    assert store.table(SEGMENTS).count() == 1
    assert current_segments(store, EmbedConfig()).collect().height == 0


def test_killed_at_any_moment_it_goes_on_without_a_lost_or_doubled_row(store: Store, tmp_path: Path) -> None:
    for i in range(4):
        put(store, f"{i}", f"Item {i}", " ".join(f"Sentence {i} {j}." for j in range(6)))
    for kill_after_rows in (1, 10, 18):
        child = subprocess.Popen([sys.executable, __file__, store.url, str(tmp_path / "work")])
        deadline = time.monotonic() + 30
        while store.table(EMBEDDINGS).count() < kill_after_rows and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
        child.wait()
    assert 18 <= store.table(EMBEDDINGS).count() < 28
    embed(store, tmp_path)
    rows = store.table(EMBEDDINGS).read("text_digest")
    assert (rows.height, rows["text_digest"].n_unique()) == (28, 28)
    assert store.table(SEGMENTS).count() == 28


def _embed_slowly(url: str, folder: str) -> None:
    config = EmbedConfig(batch=1, commit_seconds=0.05)
    stage = EmbedStage(config, DESCRIBE, Store(url), Path(folder), load=lambda _: LengthEncoder(seconds=0.1))
    run_stage(stage, lambda progress: None)


def test_the_encoder_digest_knows_what_bears_on_a_vector() -> None:
    assert EmbedConfig().encoder_digest == EmbedConfig(batch=7, device="cpu").encoder_digest
    for settings in ({"normalize": False}, {"dtype": "float16"}, {"max_tokens": 64}):
        assert EmbedConfig().encoder_digest != EmbedConfig(**settings).encoder_digest


if __name__ == "__main__":
    _embed_slowly(*sys.argv[1:])
