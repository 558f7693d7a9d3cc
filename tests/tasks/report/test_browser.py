"""The page in a browser. Skipped without Chromium.

Any other report is put to the same test by naming it:

    DMESR_REPORTS=FILE[:FILE...] pytest tests/tasks/report/test_browser.py
"""

import os
from pathlib import Path

import pytest
from report_page import check_page

from tasks.evaluate import EvaluateConfig
from tasks.recommend import RecommendConfig
from tasks.report import ReportStage, report_path
from tasks.report.page import ReportConfig
from tasks.stage import run_stage

NAMED_REPORTS = [Path(name).resolve() for name in os.environ.get("DMESR_REPORTS", "").split(os.pathsep) if name]


@pytest.fixture
def page(reported_shop, small_models) -> Path:
    """The page of a shop with a title that has no space to break at."""
    reported_shop.put_item("i01", "A title without a space: " + "x" * 300, picture="p1")
    shop = reported_shop
    places = (small_models, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(ReportStage(ReportConfig(), EvaluateConfig(), RecommendConfig(k=5), *places), lambda progress: None)
    return report_path(shop.work_folder)


@pytest.mark.parametrize("named", [None, *NAMED_REPORTS], ids=str)
def test_the_page_in_a_browser(named: Path | None, page: Path, tab) -> None:
    check_page(tab, named or page)
