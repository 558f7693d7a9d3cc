import io
import os
import time
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from storage.digests import digest_of_bytes
from storage.picture_checks import PictureError
from storage.pictures import PictureStore, load_picture
from storage.schemas import PICTURES, REJECTS
from tasks.ingest.picture_paths import picture_file


def png(color: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def deliver(shop, pictures: dict[str, bytes | None]) -> None:
    """A catalog of items named like their picture files; None: the file is not there."""
    shop.catalog(*({"item_id": name.partition(".")[0], "image": name} for name in pictures))
    for name, content in pictures.items():
        path = shop.delivery / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)


def test_pictures_beside_the_catalog_are_copied_into_the_store(shop):
    deliver(shop, {"a.png": png(), "b.png": png("blue")})
    shop.ingest()
    items = shop.items("image_reference", "image_digest")
    assert [digest for _, _, digest in items] == [digest_of_bytes(png()), digest_of_bytes(png("blue"))]
    (shop.delivery / "a.png").unlink()
    _, reference, digest = items[0]
    assert load_picture(PictureStore(shop.store), reference, digest).getpixel((0, 0)) == (255, 0, 0)


def test_pictures_left_in_place(shop):
    deliver(shop, {"a.png": png()})
    shop.ingest(pictures={"keep_in_place": True})
    ((_, reference, digest),) = shop.items("image_reference", "image_digest")
    assert reference == f"file:{(shop.delivery / 'a.png').resolve()}"
    assert load_picture(PictureStore(shop.store), reference, digest).size == (20, 10)
    assert not (shop.root / "store" / "pictures" / digest[:2]).exists()
    shop.ingest()
    assert shop.items("image_reference") == [("a", f"pictures/{digest[:2]}/{digest}")]


def test_pictures_in_a_column(shop):
    frame = pl.DataFrame({"item_id": [1, 2, 3], "image": [png(), None, b"no picture"]})
    frame.write_parquet(shop.delivery / "catalog.parquet")
    shop.ingest()
    assert shop.items("image_digest") == [("1", digest_of_bytes(png())), ("2", None), ("3", None)]
    assert shop.rejects() == [(3, "image", "3", "picture_not_a_picture")]
    assert shop.plan().to_do == 0


def test_a_refused_picture_is_a_reject_and_the_item_stays(shop):
    deliver(
        shop,
        {
            "bomb.png": png("red", (200, 60)),
            "empty.png": b"",
            "fine.png": png(),
            "gone.png": None,
            "sliver.png": png("red", (2, 400)),
            "text.jpg": b"some text",
            "torn.png": png("red", (64, 64))[:-30],
        },
    )
    for _ in range(2):
        shop.ingest(pictures={"limits": {"max_pixels": 10_000}})
        assert shop.rejects() == [
            (1, "image", "bomb", "picture_too_many_pixels"),
            (2, "image", "empty", "picture_empty"),
            (4, "image", "gone", "picture_missing"),
            (5, "image", "sliver", "picture_too_small"),
            (6, "image", "text", "picture_not_a_picture"),
            (7, "image", "torn", "picture_truncated"),
        ]
    remedies = (
        "raise ingest.pictures.limits.max_pixels",
        "deliver it again",
        "deliver it",
        "a larger one",
        "deliver a picture",
        "deliver it again",
    )
    details = [detail for _, detail in shop.rows(REJECTS, "row", "detail")]
    assert [remedy for detail, remedy in zip(details, remedies, strict=True) if not detail.endswith(remedy)] == []
    with_picture = [item for item, digest in shop.items("image_digest") if digest is not None]
    assert with_picture == ["fine"]
    shop.ingest()  # other limits: the pictures are judged anew
    with_picture = [item for item, digest in shop.items("image_digest") if digest is not None]
    assert with_picture == ["bomb", "fine"]


def test_a_refused_picture_is_told_once_whichever_row_its_item_moves_to(shop):
    columns = {"image": "photo"}
    shop.catalog({"item_id": "a"}, {"item_id": "b", "photo": "gone.png"})
    shop.ingest(columns=columns)
    assert shop.rejects() == [(2, "photo", "b", "picture_missing")]
    shop.catalog({"item_id": "b", "photo": "gone.png"}, {"item_id": "a"})
    assert shop.plan(columns=columns).to_do == 0
    shop.ingest(columns=columns)
    assert len(shop.rejects()) == 1


def test_a_picture_that_a_raised_limit_took_in_can_be_used(shop):
    content = io.BytesIO()
    Image.new("1", (9000, 8000)).save(content, "PNG")
    deliver(shop, {"large.png": content.getvalue()})
    shop.ingest()
    assert shop.rejects() == [(1, "image", "large", "picture_too_many_pixels")]
    shop.ingest(pictures={"limits": {"max_pixels": 72_000_000}})
    ((_, reference, digest),) = shop.items("image_reference", "image_digest")
    assert load_picture(PictureStore(shop.store), reference, digest, max_side=9).size == (9, 8)


def test_a_url_with_half_a_character_is_refused(shop):
    shop.catalog({"item_id": "a", "image": "https://example.invalid/\ud83d.jpg"}, {"item_id": "b"})
    shop.ingest(pictures={"fetch": True})
    assert shop.rejects() == [(1, "image", "a", "picture_bad_url")]
    assert shop.items() == [("a",), ("b",)]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_picture_replaced_in_place_is_a_change(shop, in_place):
    red, blue = (png(color).ljust(200, b"\0") for color in ("red", "blue"))  # files of one size
    settings = {"pictures": {"keep_in_place": in_place}}
    deliver(shop, {"a.png": red, "b.png": red})
    shop.ingest(**settings)
    assert shop.plan(**settings).to_do == 0
    (shop.delivery / "a.png").write_bytes(blue)
    os.utime(shop.delivery / "a.png", ns=(1, time.time_ns() + 10**9))
    assert shop.plan(**settings).changed == 1
    shop.ingest(**settings)
    assert [digest for _, digest in shop.items("image_digest")] == [digest_of_bytes(blue), digest_of_bytes(red)]
    (shop.delivery / "a.png").unlink()
    shop.ingest(**settings)
    assert [digest for _, digest in shop.items("image_digest")] == [None, digest_of_bytes(red)]


@pytest.mark.parametrize("given_as", ["files", "bytes", "urls"])
def test_a_picture_that_the_store_lost_is_stored_again(shop, monkeypatch, given_as):
    delivered = {name: png(size=(9 + at, 9)) for at, name in enumerate(("empty", "fine", "gone", "short"))}
    if given_as == "files":
        deliver(shop, delivered)
    elif given_as == "bytes":
        frame = pl.DataFrame({"item_id": delivered.keys(), "image": delivered.values()})
        frame.write_parquet(shop.delivery / "catalog.parquet")
    else:
        shop.catalog(*({"item_id": name, "image": f"https://x.example/{name}"} for name in delivered))
        monkeypatch.setattr("tasks.ingest.pictures.fetch_picture", lambda url, _: delivered[url.rpartition("/")[2]])
    settings = {"pictures": {"fetch": True}}
    shop.ingest(**settings)
    assert shop.plan(**settings).to_do == 0
    items = shop.items("image_reference")
    stored = {name: shop.root / "store" / reference for name, reference in items}
    stored["gone"].unlink()
    stored["short"].write_bytes(delivered["short"][:20])
    stored["empty"].write_bytes(b"")
    assert shop.plan(**settings).changed == 3
    shop.ingest(**settings)
    assert {name: path.read_bytes() for name, path in stored.items()} == delivered
    assert shop.items("image_reference") == items
    assert shop.plan(**settings).to_do == 0


def test_the_same_pictures_in_tonights_folder_change_nothing(shop):
    deliver(shop, {"a.png": png(), "torn.png": png()[:-20]})
    shop.ingest()
    versions = shop.versions()
    (shop.root / "tonight").mkdir()
    for path in shop.delivery.iterdir():
        path.rename(shop.root / "tonight" / path.name)
    assert shop.plan(catalog=shop.root / "tonight" / "catalog.jsonl").to_do == 0
    shop.ingest(catalog=shop.root / "tonight" / "catalog.jsonl")
    assert shop.versions() == versions


def test_a_known_picture_is_not_read_again(shop, monkeypatch):
    deliver(shop, {"a.png": png(), "torn.png": png()[:-20]})
    shop.ingest()
    monkeypatch.setattr(Path, "open", _not_to_be_opened(Path.open, ".png"))
    assert shop.plan().to_do == 0


def _not_to_be_opened(opened, suffix):
    def open_other(path, *arguments, **settings):
        assert path.suffix != suffix
        return opened(path, *arguments, **settings)

    return open_other


def test_many_items_share_a_picture(shop):
    (shop.delivery / "same.png").write_bytes(png())
    shop.catalog(*({"item_id": str(number), "image": "same.png"} for number in range(5)))
    shop.ingest()
    assert {digest for _, digest in shop.items("image_digest")} == {digest_of_bytes(png())}
    assert shop.store.table(PICTURES).count() == 1


def test_urls_are_not_fetched_unless_allowed(shop):
    shop.catalog(
        {"item_id": "a", "image": "https://shop.example/a.png"}, {"item_id": "b", "image": "https://x.example/"}
    )
    for _ in range(2):
        shop.ingest()
        assert shop.rejects() == [(None, "image", None, "fetching_off")]
    assert shop.items("image_digest") == [("a", None), ("b", None)]


@pytest.mark.parametrize(
    "name, kind",
    [
        ("../secret.png", "outside_catalog"),
        ("inside/../../secret.png", "outside_catalog"),
        ("inside/../inside/a.png", "outside_catalog"),
        ("C:\\secret.png", "outside_catalog"),
        ("link_out.png", "outside_catalog"),
        ("folder_out/secret.png", "outside_catalog"),
        ("a\x00.png", "outside_catalog"),
        ("inside", "missing"),
        ("nothing.png", "missing"),
        ("circle.png", "missing"),
        ("pipe.png", "missing"),
        ("x" * 5000, "missing"),
        ("\ud800.png", "missing"),
    ],
)
def test_paths_never_leave_the_catalogs_folder(tmp_path, name, kind):
    folder = tmp_path / "delivery"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link_out.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder_out").symlink_to(tmp_path)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "link_in.png").symlink_to(folder / "inside" / "a.png")
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(PictureError) as error:
        picture_file(folder, name)
    assert error.value.kind == kind
    with pytest.raises(PictureError, match="outside_catalog"):
        picture_file(folder, str(folder / "inside" / "a.png"))  # absolute, even where it would be inside
    assert picture_file(folder, "link_in.png")[0] == (folder / "inside" / "a.png").resolve()
