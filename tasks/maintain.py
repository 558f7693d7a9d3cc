"""Maintenance: many small files become few, and files that only old versions need are deleted."""

import logging
from collections.abc import Mapping

from storage.schemas import TABLES
from storage.tables import Store

logger = logging.getLogger(__name__)


def maintain_store(store: Store, keep_hours: int) -> Mapping[str, int]:
    """Compact and vacuum every table; return how many files were deleted of each.

    Versions of the last `keep_hours` hours stay readable. A stage that runs meanwhile loses nothing: its commits and
    the compaction's are atomic, and what it reads is younger than `keep_hours`.
    """
    removed = {}
    for schema in TABLES:
        table = store.table(schema)
        if table.exists():
            table.compact()
            removed[schema.name] = table.vacuum(keep_hours)
            logger.info("%s: compacted, %d old files deleted", schema.name, removed[schema.name])
    return removed
