"""An experiment's table as Markdown and as LaTeX (needs only the package booktabs)."""

from collections.abc import Sequence

from tasks.evaluation.results import Cell
from tasks.experiments.tables import ExperimentTable, Group, Number
from tasks.text_tables import Markdown, TextTable, markdown_text

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "±": r"$\pm$",
} | {character: f"\\{character}" for character in "&%$#_{}"}
_ARROWS = {1: "▲", -1: "▼", 0: ""}
_LATEX_ARROWS = {1: r"$^{\uparrow}$", -1: r"$^{\downarrow}$", 0: ""}


def latex_text(text: str) -> str:
    """Return words as LaTeX prints them, nothing in them being a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def to_markdown(table: ExperimentTable) -> str:
    header = ["Data", "Backbone", "Model", *(metric.upper() for metric in table.metrics)]
    lines = []
    for group in table.groups:
        for place, row in enumerate(group.rows):
            names = [group.data, group.backbone] if place == 0 else ["", ""]
            numbers = [_markdown_number(number) for number in row.numbers]
            lines.append([*names, row.title, *numbers])
    return f"{TextTable(table.caption, header, lines, words=3).markdown()}\n\n{markdown_text(' '.join(table.notes))}\n"


def _markdown_number(number: Number) -> Markdown:
    value = number.cell.value
    value = {1: f"**{value}**", 2: f"<u>{value}</u>"}.get(number.place, value)
    return Markdown(" ".join(part for part in (value, number.cell.spread, _ARROWS[number.direction]) if part))


def to_latex(table: ExperimentTable, label: str) -> str:
    columns = "lll" + "r" * len(table.metrics)
    header = ["Data", "Backbone", "Model", *(metric.upper() for metric in table.metrics)]
    body = "\n\\midrule\n".join(_latex_group(group) for group in table.groups)
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{latex_text(' '.join([table.caption, *table.notes]))}}}",
            rf"\label{{tab:{label}}}",
            r"\small",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(latex_text(name) for name in header) + r" \\",
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_group(group: Group) -> str:
    lines = []
    for place, row in enumerate(group.rows):
        names = [group.data, group.backbone] if place == 0 else ["", ""]
        cells = [*(latex_text(name) for name in (*names, row.title)), *_latex_numbers(row.numbers)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(lines)


def _latex_numbers(numbers: Sequence[Number]) -> list[str]:
    return [_latex_number(number) for number in numbers]


def _latex_number(number: Number) -> str:
    value = latex_text(number.cell.value)
    value = {1: rf"\textbf{{{value}}}", 2: rf"\underline{{{value}}}"}.get(number.place, value)
    return f"{value}{_LATEX_ARROWS[number.direction]}{_latex_spread(number.cell)}"


def _latex_spread(cell: Cell) -> str:
    return rf" {{\scriptsize {latex_text(cell.spread)}}}" if cell.spread else ""
