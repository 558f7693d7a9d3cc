"""The page of a comparison: complete in itself, hostile text escaped, differences marked."""

import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from storage.pictures import PictureStore
from storage.tables import Store
from tasks.prompt_comparison import Answer, Compared, Comparison
from tasks.prompt_files import Prompt
from tasks.prompt_page import comparison_page

HOSTILE = """</td><script>alert(1)</script><img src=x onerror=alert(2)>"'{{ 7 * 7 }}"""


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def pictures(tmp_path: Path) -> PictureStore:
    return PictureStore(Store(tmp_path / "store"))


def prompt(name: str, user: str) -> Prompt:
    return Prompt(name=name, view="image", user=user)


def row(item_id: str, old: Answer, new: Answer, picture: tuple[str, str] = ("", "")) -> Compared:
    return Compared(item_id, "Mug", None, picture[0] or None, picture[1] or None, old, new)


def page(pictures: PictureStore, *rows: Compared) -> str:
    return comparison_page(Comparison(prompt("old", "Look"), prompt("new", "Look well"), rows), pictures)


def test_hostile_text_is_text_wherever_it_stands(pictures: PictureStore) -> None:
    hostile = Compared(
        HOSTILE, HOSTILE, HOSTILE, None, None, Answer("ok", HOSTILE), Answer("wrong_form", "x" + HOSTILE)
    )
    found = comparison_page(Comparison(prompt("a", HOSTILE), prompt("b", HOSTILE), (hostile,)), pictures)
    elements = Elements(found)
    assert elements.named("script") == [] and elements.named("img") == []
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert found.count("&lt;script&gt;alert(1)") == 7  # two prompts, id, title, description, two answers
    assert "{{ 7 * 7 }}" in found and "49" not in found


def test_the_page_loads_nothing_and_shows_the_picture(pictures: PictureStore) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(buffer, "PNG")
    saved = pictures.save(buffer.getvalue())
    same = Answer("ok", "a red mug")
    found = page(pictures, row("a", same, same, saved), row("b", same, same, ("pictures/gone", "0")))
    (shown,) = Elements(found).named("img")
    assert (shown["src"] or "").startswith("data:image/webp;base64,")
    assert found.count("picture can't be read") == 1
    assert "http" not in found.replace("http-equiv", "")


def test_words_that_only_one_answer_has_are_marked_and_differences_counted(pictures: PictureStore) -> None:
    changed = row("a", Answer("ok", "a red mug"), Answer("ok", "a blue mug"))
    worse = row("b", Answer("ok", "fine"), Answer("cut_off", "fine"))
    found = page(pictures, changed, worse, row("c", Answer("ok", "same"), Answer("ok", "same")))
    assert "a <del>red</del> mug" in found and "a <ins>blue</ins> mug" in found
    assert "2 of 3 answers differ. Usable: 3 before, 2 after." in found
    assert found.count('<tr class="same">') == 1
    assert '<p class="status">cut_off</p>' in found
