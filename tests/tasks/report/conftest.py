"""A shop with everything that the page shows."""

import pytest
from PIL import Image

from storage.pictures import PictureStore
from storage.schemas import REJECTS
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.recommend import RecommendConfig, RecommendStage
from tasks.stage import run_stage

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
EVALUATE, RECOMMEND = EvaluateConfig(), RecommendConfig(k=5)


@pytest.fixture
def reported_shop(lively_shop, small_models):
    picture = lively_shop.work_folder / "one.png"
    lively_shop.work_folder.mkdir()
    Image.new("RGB", (300, 200), (200, 40, 40)).save(picture)
    reference, digest = PictureStore(lively_shop.store).save(picture.read_bytes())
    lively_shop.put_items(
        {"item_id": "i00", "title": HOSTILE, "picture": digest, "reference": reference},
        {"item_id": "i03", "title": "gone", "picture": "0" * 32},  # its bytes are nowhere
    )
    lively_shop.put_answers(("i03", "image", HOSTILE, "refusal"))
    row = {"stage": "ingest", "source": "catalog.jsonl", "row": 7, "reason": "duplicate_id", "detail": HOSTILE}
    lively_shop.store.table(REJECTS).append(lively_shop._frame(REJECTS, [row]))
    lively_shop.pretend_to_train(small_models)
    places = (small_models, lively_shop.describe, lively_shop.embed, lively_shop.store, lively_shop.work_folder)
    run_stage(EvaluateStage(EVALUATE, *places), lambda progress: None)
    run_stage(RecommendStage(RECOMMEND, *places), lambda progress: None)
    return lively_shop
