from tasks.evaluation.results import Cell
from tasks.experiments.markup import latex_text, to_latex, to_markdown
from tasks.experiments.tables import ExperimentTable, Group, Number, Row, _places

HOSTILE = r"50% \& #1_{a|b}~^$*<u>"
TABLE = ExperimentTable(
    caption="A & B",
    metrics=("hr@5", "ndcg@10"),
    groups=(
        Group(
            "Shop_1",
            "SASRec",
            (
                Row("DMESR", (Number(Cell(0.5, 0.01, 9), place=1), Number(Cell(0.25, None, 9), place=2))),
                Row("w/o | ID", (Number(Cell(0.4, 0.02, 9), 2, -1), Number(Cell(0.3, None, 9), 1, 1))),
            ),
        ),
        Group("Shop_1", "–", (Row("popularity", (Number(Cell(0.1, None, 9)), Number(Cell(None, None, 0)))),)),
    ),
    notes=("100% of <b>_1 measured.",),
)


def test_words_can_do_nothing() -> None:
    assert latex_text(HOSTILE) == (
        r"50\% \textbackslash{}\& \#1\_\{a\textbar{}b\}\textasciitilde{}\textasciicircum{}\$*\textless{}u\textgreater{}"
    )
    assert latex_text("a\n\nb") == "a b"  # an empty line would end a paragraph inside a caption


def test_markdown() -> None:
    assert to_markdown(TABLE).splitlines() == [
        "**A & B**",
        "",
        "| Data | Backbone | Model | HR@5 | NDCG@10 |",
        "| --- | --- | --- | ---: | ---: |",
        r"| Shop_1 | SASRec | DMESR | **0.5000** ± 0.0100 | <u>0.2500</u> |",
        r"|  |  | w/o \| ID | <u>0.4000</u> ± 0.0200 ▼ | **0.3000** ▲ |",
        r"| Shop_1 | – | popularity | 0.1000 | – |",
        "",
        r"100% of \<b\>\_1 measured.",
    ]


def test_latex() -> None:
    lines = to_latex(TABLE, "try").splitlines()
    assert r"\caption{A \& B 100\% of \textless{}b\textgreater{}\_1 measured.}" in lines
    assert r"\begin{tabular}{lllrr}" in lines
    assert lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")] == [
        r"Shop\_1 & SASRec & DMESR & \textbf{0.5000} {\scriptsize $\pm$ 0.0100} & \underline{0.2500} \\",
        r" &  & w/o \textbar{} ID & \underline{0.4000}$^{\downarrow}$ {\scriptsize $\pm$ 0.0200} & "
        r"\textbf{0.3000}$^{\uparrow}$ \\",
        r"\midrule",
        r"Shop\_1 & -- & popularity & 0.1000 & -- \\",
    ]


def test_places_of_ties_empty_cells_and_lone_rows() -> None:
    assert _places([0.2, 0.3, 0.3, 0.1]) == [2, 1, 1, 0]
    assert _places([None, 0.3, 0.1]) == [0, 1, 2]
    assert _places([0.3]) == [0]
    assert _places([None, None]) == [0, 0]
