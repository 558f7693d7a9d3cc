"""A note of the last delivery that held nothing new, so that the same one need not be read again.

It names the files by their content's digest, the settings, and the tables' versions: whatever differs, the delivery is
read. The note is only a shortcut: without it (another work folder) the result is the same.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from storage.digests import digest_of
from storage.folders import write_whole
from storage.schemas import INTERACTIONS, ITEMS, PICTURES
from storage.tables import Store
from tasks.ingest.delivery import Delivery
from tasks.stage import StageError

logger = logging.getLogger(__name__)

_FILE = "ingest_memo.json"


def files_digest(delivery: Delivery) -> str:
    """Return a digest of the files' places and content; take it before they are read."""
    return digest_of([[str(source.path), _content_digest(source.path)] for source in delivery.files])


def delivery_digest(files: str, config_digest: str, store: Store) -> str:
    """Return a digest of the files (by `files_digest`), the settings, and the tables as they are now."""
    tables = store.references(ITEMS, PICTURES, INTERACTIONS)
    versions = {name: [reference.table_id, reference.version] for name, reference in tables.items()}
    return digest_of({"config": config_digest, "files": files, "tables": versions})


def remembered(work_folder: Path, digest: str) -> Mapping[str, int] | None:
    """Return the counts noted for this very delivery, or None."""
    try:
        noted = json.loads((work_folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return noted["counts"] if isinstance(noted, dict) and noted.get("digest") == digest else None


def remember(work_folder: Path, digest: str, counts: Mapping[str, int]) -> None:
    """Note a delivery that held nothing (more) to do."""
    try:
        write_whole(work_folder / _FILE, json.dumps({"digest": digest, "counts": dict(counts)}))
    except OSError as error:
        logger.warning("%s can't be written (%s): the next plan reads the files again", work_folder / _FILE, error)


def _content_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise StageError(
            f"{path}: can't be read: {error.strerror}; check ingest.catalog, ingest.interactions, ingest.folder"
        ) from error
