"""Picture paths of a catalog: relative to its folder, and never out of it."""

import stat
from pathlib import Path, PureWindowsPath

from storage.picture_checks import PictureError


def picture_file(folder: Path, text: str) -> tuple[Path, str]:
    """Return the file that a catalog's picture path means, and a stamp of its size and time.

    Raises PictureError of kind `outside_catalog` (absolute, `..`, a link that leads out) or `missing`.
    """
    outside = PictureError("outside_catalog", f"{text[:200]!r} leaves the catalog's folder; give a path inside it")
    relative = Path(text)
    if relative.is_absolute() or PureWindowsPath(text).drive or ".." in relative.parts or "\x00" in text:
        raise outside
    try:
        path = (folder / relative).resolve(strict=True)
        status = path.stat()
    except (OSError, RuntimeError, UnicodeEncodeError) as error:  # RuntimeError: links in a circle
        raise PictureError("missing", f"{text[:200]!r} is not in the catalog's folder or can't be opened") from error
    if not path.is_relative_to(folder.resolve()):
        raise outside
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("missing", f"{text[:200]!r} is no file")
    return path, f"{status.st_size}-{status.st_mtime_ns}"
