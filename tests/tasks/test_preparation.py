"""Work made ready ahead, in order, in bounded memory."""

import threading
import time
from collections.abc import Iterator

from tasks.preparation import Preparation

_LONG = 60.0  # seconds


def test_pieces_come_in_order_however_long_each_takes() -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.02 if number % 2 == 0 else 0)
        return number * 10

    preparation = Preparation(iter(range(1, 9)), slow_if_even, workers=3, ahead=4)
    taken = []
    while not preparation.exhausted:
        taken.append(preparation.take(_LONG))
    preparation.close()
    assert taken == [10, 20, 30, 40, 50, 60, 70, 80]


def test_no_more_rows_are_drawn_than_may_wait() -> None:
    drawn: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    preparation = Preparation(rows(), lambda number: number, workers=2, ahead=5)
    assert preparation.take(_LONG) == 0
    assert len(drawn) <= 6
    preparation.close()


def test_without_waiting_a_piece_that_is_not_ready_is_none() -> None:
    gate = threading.Event()
    preparation = Preparation(iter([1]), lambda number: (gate.wait(), number)[1], workers=1, ahead=1)
    assert preparation.take(0) is None
    assert not preparation.exhausted
    gate.set()
    assert preparation.take(_LONG) == 1
    assert preparation.exhausted
    preparation.close()
