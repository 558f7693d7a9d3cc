import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from storage.pictures import PictureStore
from storage.schemas import EMBEDDINGS, INTERACTIONS, ITEMS, PICTURES, REJECTS, RUNS, TABLES, TableSchema
from storage.tables import SchemaError, Store, StoreError, Table

NOW = datetime(2026, 11, 23, 16, 30, 0, 123456, tzinfo=UTC)


def value_of(data_type: pa.DataType, number: int) -> object:
    """A value of an Arrow type, another for each number."""
    if pa.types.is_string(data_type):
        return f"text {number} é\n"
    if pa.types.is_timestamp(data_type):
        return NOW
    if pa.types.is_list(data_type):
        return [number + 0.5, -1.0]
    if pa.types.is_boolean(data_type):
        return number % 2 == 0
    return number + 0.5 if pa.types.is_floating(data_type) else number


def rows_of(schema: TableSchema, count: int, start: int = 0) -> pa.Table:
    rows = [
        {field.name: value_of(field.type, number) for field in schema.arrow} for number in range(start, start + count)
    ]
    return pa.Table.from_pylist(rows, schema=schema.arrow)


def runs_of(*run_ids: str, stage: str = "ingest") -> pl.DataFrame:
    rows = rows_of(RUNS, len(run_ids)).to_pylist()
    named = [{**row, "run_id": run_id, "stage": stage} for row, run_id in zip(rows, run_ids, strict=True)]
    return pl.from_arrow(pa.Table.from_pylist(named, schema=RUNS.arrow))


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.name)
def test_rows_come_back_as_they_were(tmp_path, schema):
    table = Store(tmp_path).table(schema)
    rows = rows_of(schema, 3)
    table.append(rows)
    assert table.read().to_arrow().cast(schema.arrow).sort_by(schema.arrow.names[0]) == rows.sort_by(
        schema.arrow.names[0]
    )
    assert table.empty().schema == table.read().schema


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.name)
def test_nulls_come_back_where_they_are_allowed(tmp_path, schema):
    table = Store(tmp_path).table(schema)
    row = {field.name: value_of(field.type, 1) if field.name in schema.key else None for field in schema.arrow}
    table.append(pa.Table.from_pylist([row], schema=schema.arrow))
    table.append(rows_of(schema, 1, start=5))
    assert table.read().null_count().sum_horizontal().item() == len(schema.arrow) - len(schema.key)


def test_before_the_first_commit_there_is_nothing(store):
    table = store.table(RUNS)
    assert not table.exists()
    assert table.reference() is None
    assert table.count() == 0
    assert table.read("run_id").height == 0
    assert list(table.parts()) == []
    table.append(runs_of())
    assert not table.exists()  # no rows, no commit
    assert store.references(RUNS, ITEMS) == {}


def test_append_upsert_and_versions(store):
    table = store.table(RUNS)
    table.append(runs_of("a", "b"), note="first")
    before = table.reference()
    table.upsert(runs_of("b", "c", stage="embed"), note="second")
    assert sorted(table.read("run_id", "stage").rows()) == [("a", "ingest"), ("b", "embed"), ("c", "embed")]
    after = table.reference()
    assert after.version == before.version + 1
    assert after.table_id == before.table_id
    then = table.scan(before.version).select("run_id", "stage").collect()
    assert sorted(then.rows()) == [("a", "ingest"), ("b", "ingest")]


def test_a_key_of_two_columns(store):
    table = store.table(EMBEDDINGS)
    table.append(rows_of(EMBEDDINGS, 2))
    changed = rows_of(EMBEDDINGS, 1).to_pylist()[0]
    table.upsert(pa.Table.from_pylist([{**changed, "encoder": "other"}], schema=EMBEDDINGS.arrow))
    table.upsert(pa.Table.from_pylist([{**changed, "encoder_digest": "other"}], schema=EMBEDDINGS.arrow))
    assert table.count() == 3
    assert sorted(table.read("encoder")["encoder"].to_list()) == ["other", "text 0 é\n", "text 1 é\n"]


def test_a_key_that_stands_twice_is_refused(tmp_path):
    table = Store(tmp_path).table(EMBEDDINGS)
    first, other = rows_of(EMBEDDINGS, 2).to_pylist()
    rows = [first, {**other, "text_digest": first["text_digest"]}]
    table.append(pa.Table.from_pylist(rows, schema=EMBEDDINGS.arrow))  # another encoder's is another key
    again = pa.Table.from_pylist([first, other, first], schema=EMBEDDINGS.arrow)
    for write in (table.append, table.upsert):
        with pytest.raises(SchemaError, match=r"embeddings: the key .*'encoder_digest': 'text 0.* several rows"):
            write(again)
    assert table.count() == 2


def test_compaction_changes_no_row_and_vacuum_frees_what_is_old(store):
    table = store.table(RUNS)
    for number in range(5):
        table.append(runs_of(f"run {number}"))
    rows = table.read().sort("run_id")
    table.compact()
    assert table.read().sort("run_id").equals(rows)
    assert table.vacuum(keep_hours=1) == 0  # files of the last hour are needed to read the last hour's versions
    assert len(table.old_files(keep_hours=0)) == 5
    assert table.vacuum(keep_hours=0) == 5
    assert table.read().sort("run_id").equals(rows)
    version = table.reference().version
    assert table.vacuum(keep_hours=0) == 0  # the log names them still
    assert table.reference().version == version


def test_maintenance_of_a_table_that_is_not_there(store):
    store.table(RUNS).compact()
    assert store.table(RUNS).vacuum(keep_hours=0) == 0


def test_vacuum_takes_what_a_killed_writer_left_a_day_ago(tmp_path):
    table = Store(tmp_path).table(RUNS)
    table.append(runs_of("a"))
    for hours in (0, 23, 25):
        left = tmp_path / "runs" / f"left-{hours}.parquet"
        left.touch()
        os.utime(left, (time.time() - hours * 3600,) * 2)
    assert table.vacuum(keep_hours=26) == 0
    assert table.vacuum(keep_hours=0) == 1
    assert sorted(path.stem for path in (tmp_path / "runs").glob("left-*")) == ["left-0", "left-23"]
    assert table.read("run_id")["run_id"].to_list() == ["a"]


def test_vacuum_leaves_the_pictures_that_lie_beside_their_table(tmp_path):
    store = Store(tmp_path)
    row = dict.fromkeys(PICTURES.arrow.names) | {"source": "a.png", "stamp": "1", "run_id": "r"}
    for number in range(2):
        store.table(PICTURES).upsert(pa.Table.from_pylist([row | {"detail": str(number)}], schema=PICTURES.arrow))
    reference, _ = PictureStore(store).save(b"a picture")
    picture = tmp_path / reference
    os.utime(picture, (time.time() - 40 * 24 * 3600,) * 2)
    assert picture.parents[1] == Path(store.table(PICTURES).location)
    assert store.table(PICTURES).vacuum(keep_hours=0) == 1  # the file of the row before
    assert PictureStore(store).read(reference) == b"a picture"


def test_the_log_remembers_removed_files_as_long_as_they_are_kept(tmp_path):
    table = Store(tmp_path).table(RUNS)
    assert table.remembers(1000)  # nothing is there to be forgotten
    table.append(runs_of("a"))
    assert table.remembers(7 * 24)  # Delta Lake does by itself
    assert not table.remembers(1000)
    table.remember(1000)
    assert table.remembers(1000)
    configuration = DeltaTable(table.location).metadata().configuration
    assert set(configuration.values()) == {"interval 1000 hours"} and len(configuration) == 2


def test_rows_are_looked_up_in_one_reading_until_all_are_found(store, monkeypatch):
    table = store.table(REJECTS)
    for details in (["a", "b", "a"], ["c", "d"], ["e"]):  # a file each, the newest at last
        rows = pl.DataFrame({"detail": details, "reason": [f"of {detail}" for detail in details]})
        table.append(pl.concat([table.empty(), rows], how="diagonal"))
    wanted = pl.DataFrame({"detail": ["b", "c", "a", "x", "d"], "number": [1, 2, 3, 4, 5]})
    (at_once,) = table.lookup(wanted, "detail", ["reason"])
    assert at_once.rows() == [("b", 1, "of b"), ("c", 2, "of c"), ("a", 3, "of a"), ("d", 5, "of d")]
    monkeypatch.setattr("storage.tables._PART_BYTES", 1)
    parts = [part.collect() for part in table.parts()]
    assert [part.height for part in parts] == [1, 2, 3] and parts[0].schema == table.empty().schema
    found = [frame["detail"].to_list() for frame in table.lookup(wanted, "detail", ["reason"])]
    assert found == [[], ["c", "d"], ["b", "a"]]
    new = wanted.filter(pl.col("detail") == "c")
    assert [frame.height for frame in table.lookup(new, "detail", ["reason"])] == [0, 1]  # the oldest is not read
    monkeypatch.undo()
    monkeypatch.setattr("storage.tables._PART_ROWS", 3)
    assert [part.collect().height for part in table.parts()] == [3, 3]


def test_files_that_go_while_they_are_read_are_an_error_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.tables._PART_BYTES", 1)
    table = Store(tmp_path).table(REJECTS)
    for detail in "ab":
        rows = pl.DataFrame({"detail": [detail], "reason": ["r"]})
        table.append(pl.concat([table.empty(), rows], how="diagonal"))
    found = table.lookup(pl.DataFrame({"detail": ["a", "b"]}), "detail", ["reason"])
    assert next(found)["detail"].to_list() == ["b"]
    table.compact()
    table.vacuum(keep_hours=0)
    with pytest.raises(StoreError, match=r"table rejects at .* can't be read: .*No such file"):
        next(found)


def test_a_store_made_again_is_another_table(tmp_path):
    tables = [Store(tmp_path / name).table(RUNS) for name in ("one", "two")]
    for table in tables:
        table.append(runs_of("a"))
    first, second = (table.reference() for table in tables)
    assert first.version == second.version
    assert first.table_id != second.table_id


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows.drop("stage"), r"table runs: columns missing \['stage'\], unknown \[\]"),
        (lambda rows: rows.with_columns(colour=pl.lit(1)), r"unknown \['colour'\]"),
        (lambda rows: rows.with_columns(run_id=pl.lit(None, pl.String)), "run_id"),
        (lambda rows: rows.with_columns(seconds=pl.lit("soon")), "table runs: .*soon"),
        (lambda rows: rows.with_columns(started_at=pl.lit("soon")), "table runs: "),
    ],
)
@pytest.mark.parametrize("write", ["append", "upsert"])
def test_rows_that_do_not_fit_are_refused(tmp_path, change, message, write):
    table = Store(tmp_path).table(RUNS)
    with pytest.raises(SchemaError, match=message):
        getattr(table, write)(change(runs_of("a", "b")))
    assert table.count() == 0


@pytest.mark.parametrize("name", ["my shöp #1", "100% {new}?", "day=*", 'say "商店"'])
def test_folders_with_unusual_names_are_read_as_they_are_written(tmp_path, name):
    table = Store(tmp_path / name / "store").table(RUNS)
    table.append(runs_of("a", "b"))
    table.append(runs_of("c"))
    table.compact()
    assert sorted(table.read("run_id")["run_id"]) == ["a", "b", "c"]
    assert [part.collect().equals(table.read()) for part in table.parts()] == [True]
    assert table.scan(version=1).filter(run_id="b").collect().height == 1


@pytest.mark.parametrize("name", ["a[b]", "a\\b", "a%20b", "a\nb"])
def test_folders_whose_names_mean_something_else_are_refused(tmp_path, name):
    with pytest.raises(StoreError, match="name another folder"):
        Store(tmp_path / name)


def test_a_damaged_log_is_a_store_error(tmp_path):
    table = Store(tmp_path).table(RUNS)
    table.append(runs_of("a"))
    for path in (tmp_path / "runs" / "_delta_log").iterdir():
        path.write_text("{broken")
    with pytest.raises(StoreError, match=r"table runs at .* can't be read"):
        table.read()


WRITER = """
import sys
from pathlib import Path
import polars as pl
from storage.schemas import INTERACTIONS
from storage.tables import Store

table = Store(Path(sys.argv[1])).table(INTERACTIONS)
print("ready", flush=True)
for number in range(10**6):
    digests = pl.int_range(number * 5000, number * 5000 + 5000, eager=True)
    rows = pl.DataFrame({"event_digest": digests}).with_columns(
        user_id=pl.lit("u"), item_id=pl.lit("i"), timestamp=pl.lit(number), file_order=pl.lit(number),
        created_at=pl.lit(None, pl.Datetime("us", "UTC")), run_id=pl.lit("r"),
    )
    table.append(rows)
"""


def test_a_killed_writer_leaves_whole_commits_only(tmp_path):
    table = Store(tmp_path).table(INTERACTIONS)
    for round_ in range(2):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        before = table.count()
        while table.count() < before + 15_000:
            time.sleep(0.01)
        time.sleep(0.013 * round_)
        process.kill()
        process.communicate()
        counts = table.read("timestamp", "file_order")
        assert counts.height % 5000 == 0
        # A table that a writer was killed in can be written at once.
        more = rows_of(INTERACTIONS, 1).set_column(0, INTERACTIONS.arrow.field(0), pa.array([-1 - round_]))
        height = table.count()
        table.append(more)
        assert table.count() == height + 1
        table.upsert(more)
        assert table.count() == height + 1
        (tmp_path / "interactions").rename(tmp_path / f"done {round_}")


def test_commits_carry_their_note(tmp_path):
    store = Store(tmp_path)
    store.table(RUNS).append(runs_of("a"), note="why")
    log = (tmp_path / "runs" / "_delta_log").glob("*1.json")
    infos = [json.loads(line) for path in log for line in path.read_text().splitlines()]
    assert any(info.get("commitInfo", {}).get("note") == "why" for info in infos)


def test_rejects_have_no_key(store):
    table = store.table(REJECTS)
    table.append(rows_of(REJECTS, 1))
    table.append(rows_of(REJECTS, 1))
    assert table.count() == 2


def test_deleted_rows_are_counted_and_gone(tmp_path):
    table = Store(tmp_path).table(RUNS)
    assert table.delete("run_id = 'a'") == 0
    table.append(runs_of("a", "b"))
    assert table.delete("run_id = 'c'") == 0
    assert table.delete("run_id = 'a'") == 1
    assert table.read("run_id")["run_id"].to_list() == ["b"]


def test_rows_of_keys_are_deleted_where_the_condition_holds(tmp_path):
    table = Store(tmp_path).table(RUNS)
    assert table.delete_keys("run_id", ["a"]) == 0
    table.append(runs_of("a", "b", "it's"))
    assert table.delete_keys("run_id", ["c"]) == table.delete_keys("run_id", []) == 0
    assert table.delete_keys("run_id", ["a", "it's", "b"], only="run_id <> 'b'") == 2
    assert table.read("run_id")["run_id"].to_list() == ["b"]


def test_the_rows_of_30000_keys_are_deleted(tmp_path):
    table = Store(tmp_path).table(RUNS)
    keys = [f"{number:032x}" for number in range(30_000)]
    rows = pl.DataFrame({"run_id": [*keys, "kept"]}, schema_overrides=table.empty().schema)
    table.append(pl.concat([table.empty(), rows], how="diagonal"))
    assert table.delete_keys("run_id", keys) == 30_000
    assert table.read("run_id")["run_id"].to_list() == ["kept"]


def test_small_files_are_few_after_compaction(tmp_path):
    table = Store(tmp_path).table(RUNS)
    assert table.small_files(10**6) == 0
    table.append(runs_of("a"))
    table.append(runs_of("b"))
    assert (table.small_files(10**6), table.small_files(1)) == (2, 0)
    table.compact()
    assert table.small_files(10**6) == 1


def test_a_table_of_an_earlier_release_gets_the_columns_added_since(tmp_path):
    store = Store(tmp_path)
    store.table(RUNS).append(runs_of("a"))
    wider = Table(store, replace(RUNS, arrow=RUNS.arrow.append(pa.field("more", pa.string()))))
    assert wider.read("run_id", "more").rows() == [("a", None)]
    wider.append(runs_of("b").with_columns(more=pl.lit("x")))
    assert sorted(wider.read("run_id", "more").rows()) == [("a", None), ("b", "x")]
    assert [part.select("run_id", "more").collect().rows() for part in wider.parts()] == [[("b", "x"), ("a", None)]]


def test_a_release_writes_to_a_table_with_a_column_of_another(tmp_path):
    store = Store(tmp_path)
    wider = Table(store, replace(RUNS, arrow=RUNS.arrow.append(pa.field("more", pa.string()))))
    wider.append(runs_of("a").with_columns(more=pl.lit("x")))
    table = store.table(RUNS)
    table.append(runs_of("b"))
    table.upsert(runs_of("a"))
    assert table.read().columns == RUNS.arrow.names
    assert sorted(wider.read("run_id", "more").rows()) == [("a", "x"), ("b", None)]
