"""Pictures in the store, named by the digest of their bytes.

An item's `image_reference` is either `pictures/ab/abcd…`, a place under the store's root, or `file:/…`, a picture that
was left where it was delivered. Its `image_digest` says which bytes are meant: a picture whose bytes are others is an
error, never a silent swap.
"""

import os
import stat
import uuid
from functools import cached_property
from pathlib import Path

import pyarrow.fs as arrow_fs
from PIL import Image

from storage.digests import digest_of_bytes
from storage.picture_checks import MOST_PIXELS, PictureError, decode_picture
from storage.tables import Store, StoreError

_FOLDER = "pictures"
_IN_PLACE = "file:"


class PictureStore:
    """Pictures under a store's root, on a local disk or in an object store. Threads may share one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, content: bytes) -> tuple[str, str]:
        """Store a picture's bytes, unless they are there already; return its reference and digest.

        Raises StoreError if the store can't be written.
        """
        digest = digest_of_bytes(content)
        reference = reference_of(digest)
        try:
            if self._size(reference) != len(content):
                self._write(reference, content)
        except OSError as error:
            raise StoreError(
                f"picture {reference} in {self._store.url} can't be written: {error}. "
                "Check free space and permissions, then run the stage again: what was committed stays"
            ) from error
        return reference, digest

    def holds(self, reference: str, size: int | None) -> bool:
        """Whether the store has a picture's file, of `size` bytes; None: of any. An object store is listed once."""
        found = self._size(reference)
        return bool(found) if size is None else found == size

    def read(self, reference: str) -> bytes:
        """Return a picture's bytes. Raises PictureError of kind `missing` or `unreadable`."""
        try:
            if is_in_place(reference):
                return Path(reference.removeprefix(_IN_PLACE)).read_bytes()
            return self._read(reference)
        except FileNotFoundError as error:
            raise PictureError("missing", f"{reference} is gone; ingest its delivery again") from error
        except OSError as error:
            raise PictureError("unreadable", f"{reference} can't be read: {error}") from error

    def _size(self, reference: str) -> int | None:
        if self._store.is_local:
            try:
                found = self._local(reference).stat()
            except FileNotFoundError:
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        return self._listed.get(reference)

    def _write(self, reference: str, content: bytes) -> None:
        if not self._store.is_local:
            filesystem, root = self._remote
            with filesystem.open_output_stream(f"{root}/{reference}") as stream:
                stream.write(content)
            self._listed[reference] = len(content)
            return
        path = self._local(reference)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there, so that a killed run leaves no half picture under a full name. Two
        # items may share a picture and two threads save it at once: each writes a file of its own.
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _read(self, reference: str) -> bytes:
        if self._store.is_local:
            return self._local(reference).read_bytes()
        filesystem, root = self._remote
        with filesystem.open_input_stream(f"{root}/{reference}") as stream:
            return stream.read()

    def _local(self, reference: str) -> Path:
        return Path(self._store.url) / reference

    @cached_property
    def _listed(self) -> dict[str, int]:
        """Bytes of each picture in an object store, by reference."""
        filesystem, root = self._remote
        everything = arrow_fs.FileSelector(f"{root}/{_FOLDER}", allow_not_found=True, recursive=True)
        files = (info for info in filesystem.get_file_info(everything) if info.type == arrow_fs.FileType.File)
        return {info.path.removeprefix(f"{root}/"): info.size for info in files}

    @cached_property
    def _remote(self) -> tuple[arrow_fs.FileSystem, str]:
        return _filesystem(self._store)


def reference_of(digest: str) -> str:
    """Return the reference of a picture that is kept in the store."""
    return f"{_FOLDER}/{digest[:2]}/{digest}"


def in_place_reference(path: Path) -> str:
    """Return the reference of a picture that stays where it was delivered."""
    return f"{_IN_PLACE}{path}"


def is_in_place(reference: str) -> bool:
    """Whether a picture stayed where it was delivered."""
    return reference.startswith(_IN_PLACE)


def load_picture(
    pictures: PictureStore,
    reference: str,
    expected_digest: str,
    max_side: int | None = None,
) -> Image.Image:
    """Return an item's picture upright, in RGB on white, no side longer than max_side pixels.

    How many pixels it may have ingest has decided, for these bytes. Raises PictureError; of kind `digest_mismatch` if
    the bytes are not the ones that were ingested.
    """
    content = pictures.read(reference)
    if digest_of_bytes(content) != expected_digest:
        raise PictureError("digest_mismatch", f"{reference} has changed since it was ingested; ingest it again")
    return decode_picture(content, MOST_PIXELS, max_side)


def _filesystem(store: Store) -> tuple[arrow_fs.FileSystem, str]:
    """Return the object store's file system and the store's root in it, by the options that the tables use, too."""
    _, _, root = store.url.partition("://")
    options = {name.upper().removeprefix("AWS_"): value for name, value in store.storage_options.items()}
    endpoint = options.get("ENDPOINT_URL") or options.get("ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")
    filesystem = arrow_fs.S3FileSystem(
        access_key=options.get("ACCESS_KEY_ID"),
        secret_key=options.get("SECRET_ACCESS_KEY"),
        session_token=options.get("SESSION_TOKEN"),
        region=options.get("REGION") or os.environ.get("AWS_REGION"),
        endpoint_override=endpoint,
        scheme="http" if (endpoint or "").startswith("http://") else "https",
    )
    return filesystem, root
