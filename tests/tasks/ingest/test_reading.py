import gzip
import itertools
from pathlib import Path

import polars as pl
import pytest

from tasks.ingest.delivery import SourceFile
from tasks.ingest.reading import read_rows
from tasks.ingest.refusals import Refusal
from tasks.stage import StageError


def read(path: Path, content: bytes | None = None, **settings) -> list:
    """What a file of these bytes is read as; `settings` as in SourceFile."""
    if content is not None:
        path.write_bytes(content)
    file_format = settings.pop("format", path.name.removesuffix(".gz").rpartition(".")[2])
    needed = settings.pop("needed", {})
    return list(read_rows(SourceFile(path, path.name, file_format, **settings), needed))


def reasons(rows: list) -> list:
    return [(row.row, row.reason) if isinstance(row, Refusal) else row for row in rows]


def test_json_lines_with_bom_crlf_blank_lines_and_no_last_line_break(tmp_path):
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": "\xc3\xa9"}'
    assert read(tmp_path / "x.jsonl", content) == [(1, {"a": 1}), (3, {"a": "é"})]


def test_json_lines_that_are_refused_and_the_rest_is_read(tmp_path):
    lines = [
        b'{"a": 1',
        b"[1]",
        b'{"a": "\xe9"}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a": "' + b"x" * 300 + b'"}',
        b'{"a": 2}',
    ]
    lines[5] = b'{"a":' + lines[5][:250]
    rows = read(tmp_path / "x.jsonl", b"\n".join(lines), max_line_bytes=6000)
    assert reasons(rows)[:5] == [
        (1, "broken_json"),
        (2, "not_an_object"),
        (3, "invalid_utf8"),
        (4, {"a": None}),
        (5, "broken_json"),
    ]
    assert rows[-1] == (8, {"a": 2})


def test_a_long_line_is_refused_without_being_held(tmp_path):
    rows = read(tmp_path / "x.jsonl", b'{"a": "' + b"x" * 10_000 + b'"}\n{"a": 2}\n', max_line_bytes=64)
    assert reasons(rows) == [(1, "line_too_long"), (2, {"a": 2})]


def test_deep_nesting_is_refused(tmp_path):
    rows = read(tmp_path / "x.jsonl", b'{"a":' + b"[" * 200_000 + b'\n{"a": 2}\n')
    assert reasons(rows) == [(1, "broken_json"), (2, {"a": 2})]


def test_values_nested_deeper_than_texts_are_made_of_are_refused(tmp_path):
    deep, flat = b"[" * 400 + b'"x"' + b"]" * 400, b"[" + b",".join([b'{"c": []}'] * 99) + b"]"
    rows = read(tmp_path / "x.jsonl", b'{"a":' + deep + b'}\n{"a":' + flat + b'}\n{"a":' + deep[384:419] + b"}\n")
    assert reasons(rows)[0] == (1, "nested_too_deep")
    assert rows[1][1] == {"a": [{"c": []}] * 99}
    assert rows[2][0] == 3


@pytest.mark.parametrize(
    "content, remedy",
    [
        (b'[{"a": 1}]', "jq -c"),
        ('{"a": 1}'.encode("utf-16"), "iconv -f utf-16 "),
        ('{"a": 1}'.encode("utf-16-be"), "iconv -f utf-16-be "),
    ],
)
def test_files_that_are_no_json_lines_say_how_to_convert(tmp_path, content, remedy):
    with pytest.raises(StageError, match=remedy):
        read(tmp_path / "x.jsonl", content)


def test_csv_with_quotes_line_breaks_bom_and_crlf(tmp_path):
    content = b'\xef\xbb\xbfa,b\r\n1,"x, ""y""\r\nz"\r\n\r\n2,\r\n'
    assert read(tmp_path / "x.csv", content) == [(2, {"a": "1", "b": 'x, "y"\r\nz'}), (5, {"a": "2", "b": ""})]


def test_csv_rows_with_other_cells_than_columns(tmp_path):
    rows = read(tmp_path / "x.csv", b"a,b\n1\n1,2,3\n1,2\n")
    assert reasons(rows) == [
        (2, "wrong_number_of_cells"),
        (3, "wrong_number_of_cells"),
        (4, {"a": "1", "b": "2"}),
    ]


def test_csv_in_latin_1_says_what_to_set(tmp_path):
    content = "a\nx\ncafé\n".encode("latin-1")
    with pytest.raises(StageError, match=r"x\.csv, line 3: byte 0xe9 is not utf-8.*ingest\.encoding: latin-1"):
        read(tmp_path / "x.csv", content)
    assert read(tmp_path / "x.csv", content, encoding="latin-1")[1] == (3, {"a": "café"})


def test_csv_in_utf_16(tmp_path):
    content = "a\né\n".encode("utf-16")
    assert read(tmp_path / "x.csv", content, encoding="utf-16") == [(2, {"a": "é"})]
    with pytest.raises(StageError, match=r"x\.csv, after row 0: can't be read as csv.*truncated"):
        read(tmp_path / "x.csv", content[:-1], encoding="utf-16")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(StageError, match=rf"x\.csv is UTF-16, not utf-8; set ingest\.encoding: {encoding}$"):
            read(tmp_path / "x.csv", "a,b\r\n1,é\r\n".encode(encoding))


def test_an_unknown_encoding(tmp_path):
    with pytest.raises(StageError, match=r"ingest\.encoding: Python knows no encoding 'martian'"):
        read(tmp_path / "x.csv", b"a\n1\n", encoding="martian")


def test_a_csv_header_that_repeats_a_name(tmp_path):
    with pytest.raises(StageError, match="names a column twice: a, a"):
        read(tmp_path / "x.csv", b"a,a\n1,2\n")


def test_a_quote_that_never_closes_costs_its_own_line_alone(tmp_path):
    rows = read(tmp_path / "x.csv", b'a,b\n1,x\n2,"19 inch rack\n3,y\n"4,z\n5,\n')
    assert reasons(rows) == [
        (2, {"a": "1", "b": "x"}),
        (3, "unclosed_quote"),
        (4, {"a": "3", "b": "y"}),
        (5, "unclosed_quote"),
        (6, {"a": "5", "b": ""}),
    ]
    assert "ingest.quoting: false" in rows[1].detail


def test_a_quote_that_never_closes_is_no_endless_cell(tmp_path):
    content = b'a\n"x\n' + b"y" * 40 + b"\n" + b"y" * 40 + b"\n"
    rows = read(tmp_path / "x.csv", content, max_line_bytes=64)
    assert reasons(rows) == [(2, "unclosed_quote"), (3, {"a": "y" * 40}), (4, {"a": "y" * 40})]


def test_two_titles_that_begin_with_a_quote_are_not_one_cell(tmp_path):
    content = b'id\ttitle\n1\t"Heroes\n2\tx\n3\t"Low\n4\t"y"\n'
    rows = read(tmp_path / "x.tsv", content, format="csv", delimiter="\t")
    assert [row for row, _ in reasons(rows)] == [2, 3, 4, 5]
    assert [row[1]["title"] for row in rows if not isinstance(row, Refusal)] == ["x", "y"]
    rows = read(tmp_path / "x.tsv", content, format="csv", delimiter="\t", quoted=False)
    assert [row[1]["title"] for row in rows] == ['"Heroes', "x", '"Low', '"y"']


def test_a_file_of_cells_cut_off_is_read_in_one_pass(tmp_path):
    content = b"a,b,c\n" + b'1,"Title","A description cut o\n' * 20_000  # each time from the start: a minute
    rows = read(tmp_path / "x.csv", content)
    assert len(rows) == 20_000 and {row.reason for row in rows} == {"unclosed_quote"}


def test_an_unclosed_quote_in_the_last_line_and_quotes_within_a_line(tmp_path):
    assert reasons(read(tmp_path / "x.csv", b'a,b\n1,"x,y\n')) == [(2, "unclosed_quote")]
    assert read(tmp_path / "x.csv", b'a,b\n5" pipe,"x" y\n')[0] == (2, {"a": '5" pipe', "b": "x y"})


def test_a_quoted_cell_at_the_end_of_the_file_may_have_line_breaks(tmp_path):
    assert read(tmp_path / "x.csv", b'a,b\n1,"x\n\ny"') == [(2, {"a": "1", "b": "x\n\ny"})]
    assert read(tmp_path / "x.csv", b'"a\nb",c\n1,2\n') == [(3, {"a\nb": "1", "c": "2"})]


def test_a_header_whose_quote_never_closes(tmp_path):
    with pytest.raises(StageError, match=r"x\.csv, line 1, the header: a quote opens a cell"):
        read(tmp_path / "x.csv", b'"a,b\n1,2\n')


def test_delimited_without_quoting(tmp_path):
    content = b'1|"A" film|x\n2|B|y\n'
    rows = read(tmp_path / "u.csv", content, delimiter="|", quoted=False, header=("id", "title", "c"))
    assert rows == [(1, {"id": "1", "title": '"A" film', "c": "x"}), (2, {"id": "2", "title": "B", "c": "y"})]
    rows = read(tmp_path / "u.csv", b"1::A::x\n", delimiter="::", quoted=False, header=("id", "title", "c"))
    assert rows == [(1, {"id": "1", "title": "A", "c": "x"})]


def test_parquet_with_lists_and_bytes(tmp_path):
    frame = pl.DataFrame({"a": [1, 2], "b": [["x"], None], "image": [b"p", None]})
    frame.write_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [
        (1, {"a": 1, "b": ["x"], "image": b"p"}),
        (2, {"a": 2, "b": None, "image": None}),
    ]


def test_gzip(tmp_path):
    assert read(tmp_path / "x.jsonl.gz", gzip.compress(b'{"a": 1}\n')) == [(1, {"a": 1})]
    assert read(tmp_path / "x.csv.gz", gzip.compress(b"a\n1\n")) == [(2, {"a": "1"})]
    assert read(tmp_path / "x.csv", gzip.compress(b"a\n1\n")) == [(2, {"a": "1"})]  # a download that lost its .gz
    with pytest.raises(StageError, match=r"can't be read as jsonl.*Deliver the file again"):
        read(tmp_path / "x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9)[:-12])


@pytest.mark.parametrize(
    "content, remedy", [(b"PAR1\x15\x04", "rename it to .parquet"), (b"PK\x03\x04\x14\x00", "unpack it")]
)
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_files_of_another_format(tmp_path, name, content, remedy):
    with pytest.raises(StageError, match=f"{name}: can't be read as .*{remedy}"):
        read(tmp_path / name, content)
    with pytest.raises(StageError, match=f"{name}: can't be read as .*unpack it .gzip -d.*{remedy}"):
        read(tmp_path / name, gzip.compress(content))


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.gz"])
def test_damaged_files(tmp_path, name):
    with pytest.raises(StageError, match="can't be read as"):
        read(tmp_path / name, b"these are no such bytes")


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(StageError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(StageError, match="is a folder"):
        read(tmp_path / "folder.csv")


def test_a_missing_column_names_file_columns_and_setting(tmp_path):
    with pytest.raises(StageError) as error:
        read(tmp_path / "x.csv", b"sku,title\n1,x\n", needed={"columns.item_id": "item_id"})
    assert str(error.value).endswith(
        "x.csv: no column 'item_id'; it has 'sku', 'title'. Set ingest.columns.item_id to the column that holds it"
    )


def test_a_column_of_json_lines_may_come_first_in_any_row(tmp_path):
    content = b'{"item_id": 1}\n' * 1500 + b'{"item_id": 2, "photo": "x"}\n'
    rows = read(tmp_path / "x.jsonl", content, needed={"columns.image": "photo"})
    assert len(rows) == 1501 and rows[-1] == (1501, {"item_id": 2, "photo": "x"})
    with pytest.raises(
        StageError, match=r"x\.jsonl: no column 'foto'; it has 'item_id', 'photo'\. Set ingest\.columns"
    ):
        read(tmp_path / "x.jsonl", needed={"columns.image": "foto"})


def test_a_column_of_every_row_that_a_thousand_rows_of_json_lines_lack_is_told_at_once(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"sku": 1}\n' * 1001)
    rows = read_rows(SourceFile(path, path.name, "jsonl"), {"event_columns.item_id": "item_id"})
    assert len(list(itertools.islice(rows, 999))) == 999
    with pytest.raises(StageError, match=r"no column 'item_id'; it has 'sku'\. Set ingest\.event_columns\.item_id"):
        next(rows)


def test_a_header_that_lacks_a_column_is_told_before_its_rows(tmp_path):
    with pytest.raises(StageError, match="no column 'item_id'; it has 'sku'"):
        read(tmp_path / "x.csv", b"sku\n1,x\n2,x\n", needed={"columns.item_id": "item_id"})


@pytest.mark.parametrize(
    "header, settings, remedy",
    [
        ("item_id;title\n", {}, r'no column .*at \',\' but at \';\': set ingest\.delimiter: ";"$'),
        ('"item_id";"title"\n', {}, r'ingest\.delimiter: ";"$'),
        ("sku\ttitle\n", {}, r'ingest\.delimiter: "\\t"$'),
        ("item_id,title\n", {"delimiter": ";"}, r'ingest\.delimiter: ","$'),
        ("sku,title\n", {}, r"Set ingest\.columns\.item_id"),
    ],
)
def test_another_delimiter_than_the_one_named_is_told(tmp_path, header, settings, remedy):
    content = header + "1;x, y;2,50\n"
    with pytest.raises(StageError, match=remedy):
        read(tmp_path / "x.csv", content.encode(), needed={"columns.item_id": "item_id"}, **settings)
