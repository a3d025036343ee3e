"""What is kept aside: exact counts, the order of ties, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from subbyte.errors import NotFiniteError, RangeError, ShapeError
from subbyte.outliers import largest, largest_columns

SCORE = np.random.default_rng(3).integers(0, 9, (7, 11)).astype(np.float32)  # many ties


@pytest.mark.parametrize("count", [0, 1, 10, 40, 76, 77])
def test_the_largest_by_sorting(count: int) -> None:
    order = sorted(range(77), key=lambda i: (-SCORE.reshape(-1)[i], i))
    expected = np.zeros(77, bool)
    expected[order[:count]] = True
    np.testing.assert_array_equal(largest(SCORE, count), expected.reshape(7, 11))


@pytest.mark.parametrize("count", [0, 1, 5, 11])
def test_the_columns_with_the_largest_norm(count: int) -> None:
    norms = [sum(float(x) ** 2 for x in column) for column in SCORE.T]
    expected = sorted(sorted(range(11), key=lambda i: (-norms[i], i))[:count])
    assert largest_columns(SCORE, count).tolist() == expected


@pytest.mark.parametrize("choose", [largest, largest_columns])
def test_what_is_refused(choose: object) -> None:
    for score, count, error in [
        (SCORE, -1, RangeError),
        (SCORE, 78, RangeError),
        (SCORE[0], 1, ShapeError),
        (np.where(SCORE > 7, np.nan, SCORE), 1, NotFiniteError),
    ]:
        with pytest.raises(error):
            choose(score, count)  # type: ignore[operator]
