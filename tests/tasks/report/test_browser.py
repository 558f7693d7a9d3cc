"""The page as a browser lays it out. Skipped where there is no Chromium."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.evaluate import EvaluateConfig
from tasks.recommend import RecommendConfig
from tasks.report import ReportStage, report_path
from tasks.report.page import ReportConfig
from tasks.stage import run_stage

CHROMIUM = shutil.which("chromium")
PHONE_PX = 390
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

MEASURE = """<iframe width="{width}" height="800" srcdoc="{page}"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const broken = [...page.images].filter((image) => (image.loading = "eager", image.complete && !image.naturalWidth));
  const found = [page.documentElement.scrollWidth, page.images.length, broken.length];
  document.querySelector("#found").textContent = found.join(" ");
}});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_no_horizontal_scroll_on_a_phone_and_no_broken_picture(lively_shop, small_models, tmp_path: Path) -> None:
    lively_shop.put_item("i01", "A title without a space: " + "x" * 300, picture="p1")
    lively_shop.pretend_to_train(small_models)
    places = (small_models, lively_shop.describe, lively_shop.embed, lively_shop.store, lively_shop.work_folder)
    stage = ReportStage(ReportConfig(), EvaluateConfig(), RecommendConfig(), *places)
    run_stage(stage, lambda progress: None)
    page = report_path(lively_shop.work_folder).read_text(encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=PHONE_PX, page=html.escape(page)), encoding="utf-8")
    assert CHROMIUM is not None
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *QUIET, profile, "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="found">(\d+) (\d+) (\d+)</pre>', dom)
    assert found is not None
    width, _, broken = (int(number) for number in found.groups())
    assert PHONE_PX - 20 < width <= PHONE_PX
    assert broken == 0
