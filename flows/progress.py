"""Progress of long work: log lines with a rate, and a progress artifact in the UI."""

import logging
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.stage import Progress, Summary

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_UPDATES = 3.0


class ProgressLines:
    """Called by a stage as often as it likes; logs a line now and then."""

    def __init__(self, stage_name: str) -> None:
        self._stage = stage_name
        self._next_line = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next_line or progress.done >= progress.total:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            logger.info(sentence(self._stage, progress))


class ProgressReporter(ProgressLines):
    """Shows the same in the UI as well."""

    def __init__(self, stage_name: str) -> None:
        super().__init__(stage_name)
        self._artifact: UUID | None = None
        self._percent = 0.0
        self._next_update = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        super().__call__(progress)
        now = time.monotonic()
        if now >= self._next_update or progress.done >= progress.total:
            self._next_update = now + _SECONDS_BETWEEN_UPDATES
            self._publish(100.0 * progress.done / max(progress.total, 1), sentence(self._stage, progress))

    def finish(self, summary: Summary) -> None:
        """Publish 100 % where a stage ended short of its total: rows that had not changed were not worked through."""
        if self._artifact is not None and self._percent < 100.0:
            done = summary.counts.get("done", 0)
            self._publish(100.0, f"{self._stage}: {done:,} {summary.unit} in {summary.seconds:,.1f} s")

    def _publish(self, percent: float, description: str) -> None:
        self._percent = percent
        if self._artifact is None:
            created = create_progress_artifact(percent, f"{self._stage}-progress", description)
            assert isinstance(created, UUID)  # typed as what it returns inside an event loop, too
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, percent, description)


def sentence(stage_name: str, progress: Progress) -> str:
    """Return how far a stage is, as one line."""
    text = f"{stage_name}: {progress.done:,} of {progress.total:,} {progress.unit}"
    if progress.rate > 0:
        left = max(progress.total - progress.done, 0) / progress.rate
        text += f", {progress.rate:,.1f} a second" + (f", about {left:,.0f} s left" if left >= 1 else "")
    return text
