from __future__ import annotations

import math

import numpy as np
import pytest

from subbyte.calibration import grid_search, halving_search
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


def test_halving_sees_all_parts_with_few_points_and_drops_the_worse_half() -> None:
    data = np.random.default_rng(0).normal(0, 1, (16, 9))
    calls: list[tuple[int, slice]] = []

    def loss(point: int, part: slice) -> float:
        calls.append((point, part))
        return float(np.square(data[part] + point).sum())

    best, found = halving_search(loss, [3, -2, 0, 5], 16)
    assert best == 0
    assert [seen for _, seen in found] == [1, 2, 2, 1]
    assert calls == [(point, slice(0, 1)) for point in (3, -2, 0, 5)] + [(point, slice(1, 2)) for point in (0, -2)]
    # one part alone: an exhaustive search
    assert halving_search(loss, [1, 0], 1)[1] == [(loss(1, slice(0, 1)), 1), (loss(0, slice(0, 1)), 1)]
    with pytest.raises(NotFiniteError):
        halving_search(lambda *_: math.nan, [1, 2], 4)
    with pytest.raises(RangeError):
        halving_search(loss, [], 4)
    assert halving_search(lambda x, _: math.nan if x == 1 else 1.0, [1, 2, 3], 4)[0] == 2
