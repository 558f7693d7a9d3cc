from pathlib import Path

import pytest

from dmesr_model.sequences import Sequences
from tasks.audience import Audience, listed_users
from tasks.stage import StageError

ITEMS = ("a", "b", "c", "7")
STORED = Sequences.from_histories([[1, 2], [3]], ["u", "v"])


def listed(tmp_path: Path, text: str) -> Audience:
    path = tmp_path / "users.txt"
    path.write_text(text, encoding="utf-8")
    return listed_users(path, STORED, ITEMS)


def histories(audience: Audience) -> dict[str, list[int]]:
    sequences = audience.histories
    return {user: sequences.history(place).tolist() for place, user in enumerate(sequences.user_ids)}


def test_stored_given_and_missing_histories(tmp_path: Path) -> None:
    audience = listed(
        tmp_path,
        'v\n\n{"user_id": "u"}\n{"user_id": "new", "history": ["c", "zz", "a", 7, "7.0"]}\n'
        '{"user_id": "v2", "history": []}\nx\n',
    )
    # c, a and 7 are the items 3, 1 and 4; zz is none. A whole number stands for its digits.
    assert histories(audience) == {"v": [3], "u": [1, 2], "new": [3, 1, 4, 4], "v2": [], "x": []}
    assert audience.notes == (
        "1 items of histories are unknown and left out (zz)",
        "1 users are unknown and have no history: they get what is popular (x)",
    )


def test_a_given_history_counts_instead_of_the_stored_one(tmp_path: Path) -> None:
    assert histories(listed(tmp_path, '{"user_id": "u", "history": ["c"]}')) == {"u": [3]}


def test_a_line_separator_within_an_id_ends_no_line(tmp_path: Path) -> None:
    audience = listed(tmp_path, 'u\u2028v\n{"user_id": "n\u2028m", "history": ["b"]}\n')
    assert histories(audience) == {"u\u2028v": [], "n\u2028m": [2]}


def test_the_key_is_of_users_and_histories(tmp_path: Path) -> None:
    keys = [listed(tmp_path, text).key for text in ("u\nv", "u\n\nv\n", "v\nu", '{"user_id":"u","history":["a"]}\nv')]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("u\nu", "line 2: user u stands twice"),
        ('u\n{"user_id": "v"', "line 2: no JSON: "),
        ('{"user": "v"}', "line 1: no such field: user; each line is a user_id, or "),
        ('{"history": []}', "line 1: field user_id: the id is empty; give"),
        ('{"user_id": "v", "history": "a"}', "line 1: field history: 'a' is no list of item ids"),
        ('{"user_id": "v", "history": ["a", null]}', "line 1: field history: "),
    ],
)
def test_lines_that_cant_be_read_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(StageError) as raised:
        listed(tmp_path, text)
    assert expected in str(raised.value) and "users.txt" in str(raised.value)


def test_a_file_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"nowhere\.txt: can't be read"):
        listed_users(tmp_path / "nowhere.txt", STORED, ITEMS)
