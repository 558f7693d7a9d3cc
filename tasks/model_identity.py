"""What a model is, for keys: the content of its files where they lie in a folder, else its hub id and revision."""

from functools import lru_cache
from pathlib import Path

from storage.digests import digest_of, digest_of_bytes
from tasks.stage import StageError

_SUFFIXES = frozenset({".json", ".txt", ".jinja", ".model", ".safetensors", ".tiktoken", ".bin", ".pt", ".pth"})
_WHOLE_BYTES = 64 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 2**20


def model_digest(model: str, revision: str | None = None) -> str:
    """Return the digest of a model: a folder's files by content wherever it lies, or a hub id with its revision.

    Files above 64 MiB (weights) are judged by size and 65 evenly spaced pieces of 1 MiB, the first and the last among
    them, so that a plan doesn't read tens of gigabytes; another training run changes every piece.

    Raises StageError for what looks like a path and is no folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
            raise StageError(f"model {model}: there is no such folder; give a folder, or a hub id (owner/name)")
        return digest_of({"hub": model, "revision": revision or "main"})
    return digest_of({"files": {name: _file_digest(*stamp) for name, stamp in _stamps(folder).items()}})


def unpinned(section: str, model: str, revision: str | None) -> tuple[str, ...]:
    """Return a plan's note where a hub id has no revision: what is on the hub then is not in any key."""
    if revision is not None or Path(model).is_dir():
        return ()
    return (f"{section}.revision is not set: another upload of {model} would not be noticed; name a commit",)


def _stamps(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return, by its path inside the folder, each file's full path, size and time of change."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    return {
        path.relative_to(folder).as_posix(): (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    }


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, changed_ns: int) -> str:
    """Return one file's digest; `changed_ns` makes the cache forget a file that was written again."""
    if size <= _WHOLE_BYTES:
        return digest_of_bytes(Path(path).read_bytes())
    pieces = []
    with Path(path).open("rb") as file:
        for i in range(_SAMPLES + 1):
            file.seek((size - _SAMPLE_BYTES) * i // _SAMPLES)
            pieces.append(digest_of_bytes(file.read(_SAMPLE_BYTES)))
    return digest_of({"size": size, "pieces": pieces})
