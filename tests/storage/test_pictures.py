import copy
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from storage.picture_checks import PictureError
from storage.pictures import PictureStore, in_place_reference, load_picture
from storage.tables import StoreError


def png(color: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def test_a_saved_picture_comes_back(store):
    pictures = PictureStore(store)
    reference, digest = pictures.save(png())
    assert reference == f"pictures/{digest[:2]}/{digest}"
    assert pictures.read(reference) == png()
    picture = load_picture(pictures, reference, digest, max_side=5)
    assert picture.mode == "RGB"
    assert max(picture.size) == 5
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_saving_twice_changes_nothing(store):
    pictures = PictureStore(store)
    assert pictures.save(png()) == pictures.save(png())
    assert pictures.save(png("blue")) != pictures.save(png())


def test_what_the_store_holds(store):
    reference, _ = PictureStore(store).save(png())
    pictures = PictureStore(store)
    assert pictures.holds(reference, len(png())) and pictures.holds(reference, None)
    assert not pictures.holds(reference, 5) and not pictures.holds("pictures/ab/abcd", None)
    other, _ = pictures.save(png("blue"))
    assert pictures.holds(other, len(png("blue")))


def test_threads_may_save_one_picture_at_once(tmp_path):
    from storage.tables import Store

    for attempt in range(20):
        pictures = PictureStore(Store(tmp_path / str(attempt)))
        with ThreadPoolExecutor(8) as threads:
            saved = list(threads.map(pictures.save, [png()] * 16))
        assert len(set(saved)) == 1
        assert [path.name for path in (tmp_path / str(attempt) / "pictures").rglob("*") if path.is_file()] == [
            saved[0][1]
        ]


def test_a_picture_that_is_gone(store):
    with pytest.raises(PictureError, match="missing") as error:
        PictureStore(store).read("pictures/ab/abcd")
    assert error.value.kind == "missing"


def test_a_half_written_picture_is_written_again(tmp_path):
    from storage.tables import Store

    pictures = PictureStore(Store(tmp_path))
    reference, digest = pictures.save(png())
    (tmp_path / reference).write_bytes(png()[:10])
    with pytest.raises(PictureError, match="digest_mismatch"):
        load_picture(pictures, reference, digest)
    pictures.save(png())
    assert load_picture(pictures, reference, digest).size == (20, 10)


def test_a_picture_of_which_half_could_be_written_is_not_there(tmp_path, monkeypatch):
    from storage.tables import Store

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    pictures = PictureStore(Store(tmp_path))
    with pytest.raises(StoreError, match="No space left"):
        pictures.save(png())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_picture_left_in_place(tmp_path):
    from storage.digests import digest_of_bytes
    from storage.tables import Store

    path = tmp_path / "red.png"
    path.write_bytes(png())
    pictures = PictureStore(Store(tmp_path / "store"))
    reference = in_place_reference(path)
    assert load_picture(pictures, reference, digest_of_bytes(png())).size == (20, 10)
    path.write_bytes(png("blue"))
    with pytest.raises(PictureError, match="digest_mismatch"):
        load_picture(pictures, reference, digest_of_bytes(png()))


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    from storage.tables import Store

    (tmp_path / "pictures").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match=r"can't be written.*free space and permissions"):
        PictureStore(Store(tmp_path)).save(png())


def test_errors_can_be_rebuilt_elsewhere():
    error = copy.copy(PictureError("empty", "no bytes"))  # by the reduction that carries errors between processes
    assert (error.kind, error.detail) == ("empty", "no bytes")
