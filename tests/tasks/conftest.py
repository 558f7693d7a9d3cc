"""A shop made by hand, row by row, for the stages that read what others wrote."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from dmesr_model.initial_weights import draw_initial_weights
from dmesr_model.model import ModelConfig
from dmesr_model.sequences import Sequences, leave_one_out
from dmesr_model.trainer import build_model
from storage.digests import digest_of_text, event_digest
from storage.schemas import EMBEDDINGS, GENERATIONS, INTERACTIONS, ITEMS, SEGMENTS, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig, asked_views
from tasks.embed import EmbedConfig
from tasks.features import Dataset, open_features
from tasks.generation_keys import wanted_generations
from tasks.segment_keys import wanted_segments
from tasks.train import TrainStageConfig, Variant, wanted_models
from tasks.trained_models import ModelRef

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class HandMadeShop:
    """Writes rows straight into the tables, under the keys that the stages look for; each `put` is one commit."""

    store: Store
    work_folder: Path
    describe: DescribeConfig
    embed: EmbedConfig

    def put_items(self, *items: dict[str, object]) -> None:
        self.store.table(ITEMS).upsert(self._frame(ITEMS, [_item_row(**item) for item in items]))

    def put_item(self, item_id: str, title: str | None = None, **more: object) -> None:
        self.put_items({"item_id": item_id, "title": title, **more})

    def put_answers(self, *answers: tuple[str, str, str | None, str]) -> None:
        """Each answer is (item_id, view, text, status)."""
        wanted = wanted_generations(self.store.table(ITEMS).scan(), asked_views(self.describe))
        keys = {(item_id, view): key for item_id, view, key in wanted.iter_rows()}
        rows = [
            {"generation_key": keys[item_id, view], "item_id": item_id, "view": view, "status": status, "text": text}
            | {"text_digest": None if text is None else digest_of_text(text), "prompt_tokens": 5, "attempts": 1}
            for item_id, view, text, status in answers
        ]
        self.store.table(GENERATIONS).append(self._frame(GENERATIONS, rows))

    def put_answer(self, item_id: str, view: str, text: str | None, status: str = "ok") -> None:
        self.put_answers((item_id, view, text, status))

    def put_segments(self, **texts_of_items: tuple[str, ...]) -> None:
        wanted = wanted_segments(self.store.table(ITEMS).scan(), self.embed.segments)
        keys = dict(wanted.iter_rows())
        rows = [
            {"segment_key": keys[item_id], "position": position, "kind": "title" if position == 0 else "sentence"}
            | {"text": text, "text_digest": digest_of_text(text)}
            for item_id, texts in texts_of_items.items()
            for position, text in enumerate(texts)
        ]
        self.store.table(SEGMENTS).append(self._frame(SEGMENTS, rows))

    def put_vectors(self, vectors: dict[str, list[float]], encoder: str | None = None) -> None:
        rows = [
            {"text_digest": digest_of_text(text), "encoder_digest": encoder or self.embed.encoder_digest}
            | {"encoder": "made", "source": "segment", "vector": [float(value) for value in vector]}
            for text, vector in vectors.items()
        ]
        self.store.table(EMBEDDINGS).append(self._frame(EMBEDDINGS, rows))

    def put_events(self, *events: tuple[str, str, int]) -> None:
        """Each event is (user_id, item_id, timestamp)."""
        start = self.store.table(INTERACTIONS).count()
        rows = [
            {"event_digest": event_digest(*event), "file_order": start + order}
            | dict(zip(("user_id", "item_id", "timestamp"), event, strict=True))
            for order, event in enumerate(events)
        ]
        self.store.table(INTERACTIONS).append(self._frame(INTERACTIONS, rows))

    def pretend_to_train(self, config: TrainStageConfig) -> list[ModelRef]:
        """Models with random weights, IDs included, where those trained on the present data would be."""
        dataset = Dataset(self.store, self.describe, self.embed, config.filters, self.work_folder)
        features, _ = open_features(dataset.features_folder())
        train = leave_one_out(Sequences.open(dataset.sequences_folder())).train
        models = [wanted.to_train(dataset.keys) for wanted in wanted_models(config, dataset.keys, self.work_folder)]
        for model in models:
            model.record_start(dataset.keys, datetime.now(UTC))
            made = build_model(features, train, ModelConfig(**model.settings["model"]), seed=model.seed)
            if made.items.identity is not None:
                draw_initial_weights(made.items.identity)
            made.save_pretrained(model.checkpoint)
            records = [{"epoch": 0, "step": 3, "loss": 2.5, "alignment_loss": 1.0, "validation_ndcg_at_10": 0.1}]
            records[0] |= {"samples_per_second": 100.0, "seconds": 1.0, "epoch_ended": True}
            (model.folder / "progress.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
            (model.folder / "job.json").write_text(json.dumps({"features": str(dataset.features_folder())}))
            summary = {"epochs": 1, "best_epoch": 0, "stopped_early": False, "validation_ndcg_at_10": 0.1}
            summary |= {"seconds": 1.0, "parameters": 10}
            (model.folder / "summary.json").write_text(json.dumps(summary))
        return models

    def _frame(self, table: TableSchema, rows: list[dict[str, object]]) -> pl.DataFrame:
        schema = self.store.table(table).empty().schema
        complete = [{name: {"created_at": NOW, "run_id": "made", **row}.get(name) for name in schema} for row in rows]
        return pl.DataFrame(complete, schema=schema)


def _item_row(
    item_id: str,
    title: str | None = None,
    picture: str | None = None,
    active: bool = True,
    attributes: str | None = None,
    reference: str | None = None,
) -> dict[str, object]:
    texts = {"title": title, "description": None, "attributes": attributes}
    digests = {f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()}
    places = {
        "image_reference": reference or picture,
        "image_digest": picture,
        "content_digest": f"{item_id}{title}{picture}",
    }
    times = {"active": active, "first_seen_at": NOW, "updated_at": NOW}
    return {"item_id": item_id, **texts, **digests, **places, **times}


@pytest.fixture
def hand_made_shop(tmp_path: Path) -> HandMadeShop:
    return HandMadeShop(
        store=Store(tmp_path / "store"),
        work_folder=tmp_path / "work",
        describe=DescribeConfig(model="made/model"),
        embed=EmbedConfig(model="made/encoder"),
    )


@pytest.fixture
def lively_shop(hand_made_shop: HandMadeShop) -> HandMadeShop:
    """30 items of two kinds, 24 users who each walk through 6 of one kind.

    Items 0, 3, 6, ... have no picture, item 4's answer failed, items 28 and 29 have no event. No summaries.
    """
    random = np.random.default_rng(0)
    kinds = ["mug" if number % 2 else "lamp" for number in range(30)]
    titles = [f"{kind} {number}" for number, kind in enumerate(kinds)]
    ids = [f"i{number:02d}" for number in range(30)]
    pictured = [number for number in range(30) if number % 3]
    hand_made_shop.put_items(
        *(
            {"item_id": ids[number], "title": titles[number], "picture": f"p{number}" if number % 3 else None}
            | {"attributes": f'{{"kind": "{kinds[number]}"}}'}
            for number in range(30)
        )
    )
    hand_made_shop.put_answers(
        *((ids[n], "image", f"picture of {titles[n]}", "too_short" if n == 4 else "ok") for n in pictured)
    )
    hand_made_shop.put_segments(**{ids[number]: (titles[number], f"A {kinds[number]}.") for number in range(30)})
    texts = [*titles, *(f"picture of {titles[n]}" for n in pictured), "A mug.", "A lamp."]
    hand_made_shop.put_vectors(
        {text: ["mug" in text, "lamp" in text, *(random.normal(size=2) * 0.3)] for text in texts}
    )
    hand_made_shop.put_events(*_walks(random))
    return hand_made_shop


def _walks(random: np.random.Generator) -> list[tuple[str, str, int]]:
    walks = [random.choice(range(user % 2, 28, 2), size=6, replace=False) for user in range(24)]
    return [(f"u{user:02d}", f"i{n:02d}", time) for user, walk in enumerate(walks) for time, n in enumerate(walk)]


@pytest.fixture
def small_models() -> TrainStageConfig:
    """Two variants with two seeds, small enough to make in a moment."""
    small = {"width": 8, "adapter_width": 8, "layers": 1, "heads": 1, "max_length": 8}
    variants = (
        Variant(name="dmesr", model=small),
        Variant(name="id_only", model={**small, "views": [], "use_segments": False}),
    )
    return TrainStageConfig(variants=variants, seeds=(0, 1))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model of which only the tokenizer is there: enough to plan and to make requests."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


class AnsweringServer(ThreadingHTTPServer):
    """Stands in for an OpenAI-compatible server: answers "about <user turn>", slower or with an error on command."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _AnswersAbout)
        self.asked: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.seconds = 0.0  # each answer takes so long
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _AnswersAbout(BaseHTTPRequestHandler):
    server: AnsweringServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = body["messages"][-1]["content"][0]["text"]
        self.server.asked[user] += 1
        self.server.keys.add(self.headers["Authorization"])
        time.sleep(self.server.seconds)
        choice = {"message": {"content": f"about {user}"}, "finish_reason": "stop"}
        content = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}).encode()
        self.send_response(400 if "refuse" in user else 200)
        self.send_header("Content-Length", str(len(content)))
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked was killed
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def answering_server() -> Iterator[AnsweringServer]:
    server = AnsweringServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
