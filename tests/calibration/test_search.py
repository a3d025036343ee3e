from __future__ import annotations

import math

import pytest

from subbyte.calibration import grid_search
from subbyte.errors import NotFiniteError, RangeError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 1.0, 1.0], 0),
        ([2.0, 1.0, 1.0], 1),
        ([NAN, 5.0, NAN], 1),
        ([INF, INF], 0),
        ([NAN, INF], 1),
    ],
)
def test_the_first_of_the_smallest_wins(losses: list[float], best: int) -> None:
    point, seen = grid_search(lambda k: losses[k], range(len(losses)))
    assert point == best
    assert repr(seen) == repr(losses)


def test_every_point_is_tried_once_in_order() -> None:
    tried: list[str] = []
    grid_search(lambda x: tried.append(x) or 0.0, ["b", "a", "c"])  # type: ignore[func-returns-value]
    assert tried == ["b", "a", "c"]


def test_nothing_to_choose_from() -> None:
    with pytest.raises(NotFiniteError, match="all 2"):
        grid_search(lambda _: NAN, [0, 1])
    with pytest.raises(RangeError):
        grid_search(lambda _: 0.0, [])
