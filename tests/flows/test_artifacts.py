from flows.artifacts import summary_markdown
from storage.references import TableRef
from tasks.stage import Summary


def test_a_summary_in_tables_where_markup_is_text() -> None:
    details = {"id_only/0": "no <b>users</b> | none", "share": 0.25}
    written = {"metrics": TableRef("metrics", "store/metrics", "id", 3)}
    text = summary_markdown(Summary("evaluate", "run-1", "models", {"up_to_date": 1200}, 2.0, details, {}, written))
    assert text.splitlines() == [
        "# evaluate",
        "",
        "0 models in 2.0 s (0.0 a second)",
        "",
        "| count |  |",
        "| --- | ---: |",
        "| up to date | 1,200 |",
        "",
        "| detail |  |",
        "| --- | ---: |",
        r"| id_only/0 | no \<b\>users\</b\> \| none |",
        "| share | 0.25 |",
        "",
        "| table | version |",
        "| --- | ---: |",
        "| metrics | 3 |",
        "",
        "run `run-1`",
    ]
