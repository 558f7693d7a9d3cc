"""Report: one HTML page, complete in itself, on what ran on what and how good it is."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from storage.digests import digest_of, digest_of_bytes
from storage.folders import write_whole
from storage.schemas import METRICS, PROMOTIONS, RECOMMENDATIONS, REJECTS, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateConfig
from tasks.features import READS, Dataset
from tasks.recommend import RecommendConfig
from tasks.report.page import ReportConfig, render_markdown, render_page
from tasks.report.sources import Sources
from tasks.stage import Outcome, Plan, Progress, ReportProgress
from tasks.train import TrainStageConfig

logger = logging.getLogger(__name__)

_SOURCES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_file())


def report_path(work_folder: Path) -> Path:
    """Return where the page is, once it is made; `summary.md` beside it is its short form."""
    return work_folder / "report" / "index.html"


class ReportStage:
    """One unit of work is the page. It is made again when a table it reads or a setting has changed."""

    name: ClassVar[str] = "report"
    reads: ClassVar[tuple[TableSchema, ...]] = (*READS, REJECTS, METRICS, RECOMMENDATIONS, PROMOTIONS)
    writes: ClassVar[tuple[TableSchema, ...]] = ()
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: ReportConfig,
        evaluate: EvaluateConfig,
        recommend: RecommendConfig,
        train: TrainStageConfig,
        describe: DescribeConfig,
        embed: EmbedConfig,
        store: Store,
        work_folder: Path,
    ) -> None:
        self.config = config
        self.store = store
        self.work_folder = work_folder
        self._stages = (evaluate, recommend, train, describe, embed)
        self.dataset = Dataset(store, describe, embed, train.filters, work_folder)

    @property
    def config_digest(self) -> str:
        return digest_of([part.model_dump(mode="json") for part in (self.config, *self._stages)])

    def plan(self) -> Plan:
        self.dataset = self.dataset.as_it_is_now()
        known = self._key_file.read_text() if self._key_file.exists() and report_path(self.work_folder).exists() else ""
        stale = known != self._key()
        return Plan(
            stage=self.name,
            unit="pages",
            new=int(stale and not known),
            changed=int(stale and bool(known)),
            up_to_date=int(not stale),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        key, path = self._key(), report_path(self.work_folder)
        sources = Sources(*self._stages, self.store, self.work_folder, self.dataset)
        title = self.config.title or self.work_folder.name
        html = render_page(sources, self.config, title, datetime.now(UTC))
        write_whole(path, html)
        write_whole(path.with_name("summary.md"), render_markdown(sources, title))
        if sources.unreadable_model is None:  # else the page is made again as soon as it can be whole
            write_whole(self._key_file, key)
        report(Progress(1, 1, "pages", 1.0))
        logger.info("wrote %s, %.1f MB", path, len(html.encode()) / 1e6)
        return Outcome({"done": 1}, {"path": str(path), "bytes": len(html.encode())})

    @property
    def _key_file(self) -> Path:
        return report_path(self.work_folder).with_name("made_from.txt")

    def _key(self) -> str:
        tables = {name: (ref.table_id, ref.version) for name, ref in self.store.references(*self.reads).items()}
        code = [digest_of_bytes(path.read_bytes()) for path in _SOURCES]
        return digest_of([tables, code, self.config_digest])
