import polars as pl

from storage.schemas import ITEMS
from storage.tables import Store
from tasks.ingest.comparison import STATE, StoredItems


def drafts_of(**digests: str) -> pl.DataFrame:
    rows = {"item_id": list(digests), "content_digest": list(digests.values()), "image_reference": None}
    return pl.DataFrame(rows, schema_overrides={"image_reference": pl.String})


def test_drafts_are_compared_wherever_their_ids_stand_among_those_stored(tmp_path) -> None:
    table = Store(tmp_path).table(ITEMS)
    stored = drafts_of(m="1", d="1", p="1").with_columns(active=pl.Series([True, True, False]))
    table.append(pl.concat([table.empty(), stored], how="diagonal"))
    drafts = drafts_of(z="1", p="1", a="1", m="2", d="1", e="1")
    compared = StoredItems(Store(tmp_path)).compare(drafts)
    assert compared["item_id"].to_list() == drafts["item_id"].to_list()
    assert compared[STATE].to_list() == ["new", "returned", "new", "changed", "same", "new"]


def test_where_nothing_is_stored_all_is_new(tmp_path) -> None:
    assert StoredItems(Store(tmp_path)).compare(drafts_of(b="1", a="1"))[STATE].to_list() == ["new", "new"]
