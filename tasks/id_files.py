"""Files that people write for a run: ids, one a line."""

from collections.abc import Collection, Iterator
from pathlib import Path

from tasks.ingest.cleaning import BadValueError, id_text
from tasks.stage import StageError

_NAMED = 5  # ids named in a note; the rest are counted


def numbered_lines(path: Path, form: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not blank; `form` tells people what a line holds.

    Lines end where a text file's do; an id or JSON may hold other characters that Unicode breaks lines at. Raises
    StageError for a file that can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # which also makes \r\n and \r a \n
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: can't be read: {error}; give a text file: {form}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def read_item_ids(path: Path) -> dict[str, int]:
    """Return each id, read as a catalog's are, with the line that it stands on first. Raises StageError naming it."""
    ids: dict[str, int] = {}
    for number, line in numbered_lines(path, "each line is an item id"):
        try:
            ids.setdefault(id_text(line), number)
        except BadValueError as error:
            raise StageError(f"{path}: line {number}: {error.detail}") from error
    return ids


def counted(ids: Collection[str], what: str) -> str:
    """Return how many ids there are, what they are, and the first of them: `7 ids are unknown (a, b, c, d, e, …)`."""
    more = ", …" if len(ids) > _NAMED else ""
    return f"{len(ids):,} {what} ({', '.join([*ids][:_NAMED])}{more})"
