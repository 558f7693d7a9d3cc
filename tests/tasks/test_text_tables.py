from tasks.text_tables import Markdown, TextTable, markdown_text

TABLE = TextTable(
    "Two | items", ("item", "what", "price"), [("mug_1", "*red*", "9"), ("b", Markdown("**x**"), "10")], 2
)


def test_words_can_do_nothing_in_markdown() -> None:
    assert markdown_text(r"50% \& #1_{a|b}~^$*<u>") == r"50% \\& \#1\_\{a\|b\}\~^$\*\<u\>"
    assert markdown_text("Salt &lt;b&gt;") == r"Salt \&lt;b\&gt;"
    assert markdown_text("a\n\nb ![x](http://y)") == r"a b !\[x\](http://y)"
    assert markdown_text("id_only, _emphasis_ and __init__") == r"id_only, \_emphasis\_ and \_\_init\_\_"


def test_markdown() -> None:
    assert TABLE.markdown().splitlines() == [
        r"**Two \| items**",
        "",
        "| item | what | price |",
        "| --- | --- | ---: |",
        r"| mug_1 | \*red\* | 9 |",
        "| b | **x** | 10 |",
    ]


def test_plain() -> None:
    assert TABLE.plain().splitlines() == [
        "Two | items",
        "item   what   price",
        "-------------------",
        "mug_1  *red*      9",
        "b      **x**     10",
    ]
    assert TextTable("", ("a",), [("b",)]).plain() == "a\n-\nb"
