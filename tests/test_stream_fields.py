"""The candidates of a motion block, in order, and the temporal fields they are taken from."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.stream.entropy import Guesses
from tokcodec.stream.fields import BOTH, FIRST, SECOND, UNKNOWN, candidates, predicted, scaled, unknown
from tokcodec.stream.pyramid import Place, pyramid


def offered(
    vector: np.ndarray, kind: np.ndarray, block: tuple[int, int, int], near: int | None = None, far: int | None = None
) -> list[tuple[int, ...]]:
    """Candidates of a block; `near` and `far` are the numbers all over the temporal fields, whose kind is SECOND."""
    out = np.empty((6, 3), np.int16)
    fields = []
    for number in (near, far):
        field = unknown(*kind.shape)
        if number is not None:
            field[:2], field[2] = number, SECOND
        fields.append(field)
    count = candidates(vector, kind, *block, *fields, out)
    return [tuple(int(n) for n in row) for row in out[:count]]


@pytest.fixture
def field() -> tuple[np.ndarray, np.ndarray]:
    """4x4 cells, the vector of a cell is (row, column) and its kind 2, those from row 2 on are not decoded."""
    kind = np.full((4, 4), 2, np.int8)
    kind[2:] = -1
    return np.mgrid[:4, :4].astype(np.int16), kind


def test_candidates_come_in_order(field: tuple[np.ndarray, np.ndarray]) -> None:
    around, still = [(1, 0, 2), (0, 1, 2), (0, 2, 2)], [(0, 0, 0), (0, 0, 2)]
    assert offered(*field, (1, 1, 1), near=7) == [*around, (7, 7, 1), *still]
    assert offered(*field, (1, 1, 1), far=8) == [*around, (8, 8, 1), *still]
    assert offered(*field, (1, 1, 1), near=7, far=8) == [*around, (7, 7, 1), (8, 8, 1), (0, 0, 0)]  # six at most
    assert offered(*field, (1, 1, 1), near=7, far=7) == [*around, (7, 7, 1), *still]
    assert offered(*field, (1, 1, 1)) == [*around, *still]
    assert offered(*field, (2, 0, 2), near=7) == [(1, 0, 2), (1, 2, 2), (7, 7, 1), *still]


def test_temporal_candidates_are_of_the_middle_of_the_block() -> None:
    vector, kind, out = np.zeros((2, 4, 4), np.int16), np.full((4, 4), -1, np.int8), np.empty((6, 3), np.int16)
    near, far = unknown(4, 4), unknown(4, 4)
    near[:3, 2, 2], far[:3, 2, 2] = (5, -6, BOTH), (9, 0, FIRST)
    assert candidates(vector, kind, 0, 0, 4, near, far, out) == 4
    assert out[:4].tolist() == [[5, -6, 2], [9, 0, 0], [0, 0, 0], [0, 0, 2]]
    assert candidates(vector, kind, 0, 0, 2, near, far, out) == 2


def test_what_is_outside_or_not_decoded_is_no_candidate(field: tuple[np.ndarray, np.ndarray]) -> None:
    vector, kind = field
    assert offered(vector, kind, (0, 0, 4)) == [(0, 0, 0), (0, 0, 2)]
    # Left is not decoded, above right is outside.
    assert offered(vector, kind, (2, 2, 2)) == [(1, 2, 2), (0, 0, 0), (0, 0, 2)]
    assert offered(vector, kind, (3, 1, 1)) == [(0, 0, 0), (0, 0, 2)]


def test_a_candidate_comes_once(field: tuple[np.ndarray, np.ndarray]) -> None:
    vector, kind = np.zeros((2, 4, 4), np.int16), field[1]
    assert offered(vector, kind, (1, 1, 1)) == [(0, 0, 2), (0, 0, 0)]


def test_an_explicit_vector_is_predicted_by_a_median(field: tuple[np.ndarray, np.ndarray]) -> None:
    assert predicted(*field, 1, 1, 1) == (0, 1)
    assert predicted(*field, 2, 2, 2) == (0, 0)  # of (1, 2) and twice nothing
    assert predicted(*field, 2, 0, 1) == (1, 0)  # of (1, 0), (1, 1) and nothing


def motion(y: int, x: int, kind: int, depth: int = 1, merge: int = 2) -> np.ndarray:
    """A field of one motion."""
    return np.full((5, 2, 3), np.array([y, x, kind, depth, merge])[:, None, None], np.int16)


def test_vectors_are_scaled_by_distance_and_rounded_to_the_nearest() -> None:
    numbers = [10, 6, 5, 1, 0, -1, -2, -5, -6, -10, 1023, -1023]
    field = np.zeros((5, 1, len(numbers)), np.int16)
    field[0, 0], field[1, 0] = numbers, numbers[::-1]
    field[2:, 0] = np.array([[1], [3], [-1]])
    quarter = scaled(field, 4, 1)
    assert quarter[0, 0].tolist() == [3, 2, 1, 0, 0, 0, 0, -1, -1, -2, 256, -256]  # halves are rounded up
    assert quarter[1, 0].tolist() == quarter[0, 0].tolist()[::-1]
    assert scaled(field, 1, 4)[0, 0].tolist() == [40, 24, 20, 4, 0, -4, -8, -20, -24, -40, 1023, -1023]
    assert np.array_equal(quarter[2:], field[2:])
    assert np.array_equal(scaled(field, 8, 8), field)
    both = scaled(field, 4, 1, BOTH)
    assert (both[2] == BOTH).all()
    assert np.array_equal(both[3:], field[3:])


def test_near_is_the_parent_and_far_the_other_reference() -> None:
    """The frames of two spans, 4 and 8, and of a third."""
    guesses = Guesses(2, 3)

    def of(place: Place) -> list[tuple[int, ...] | None]:
        fields = guesses.of(place)
        assert all(f.dtype == np.int16 and (f == f[:, :1, :1]).all() for f in fields)
        return [None if f[2, 0, 0] == UNKNOWN else tuple(f[:, 0, 0].tolist()) for f in fields]

    anchor, two, one, three = pyramid(0, 4, -1)
    assert of(anchor) == [None, None]
    guesses.add(anchor, motion(10, -6, SECOND))
    assert of(two) == [(5, -3, BOTH, 1, 2), None]  # of the anchor, as from both; the first frame has none
    guesses.add(two, motion(8, 7, SECOND, 3, -1))
    assert of(one) == [(4, 4, SECOND, 3, -1), None]
    assert of(three) == [(4, 4, SECOND, 3, -1), (3, -1, BOTH, 1, 2)]
    guesses.add(one, motion(1, 1, FIRST))
    guesses.add(three, motion(2, 2, FIRST))
    anchor, four, *_ = pyramid(4, 8, 0)
    assert of(anchor) == [(20, -12, SECOND, 1, 2), None]  # anchors keep their kinds
    guesses.add(anchor, motion(1000, -1000, FIRST))
    assert of(four) == [(500, -500, BOTH, 1, 2), (10, -6, BOTH, 1, 2)]  # far: the anchor before
    (last,) = pyramid(12, 1, 4)
    assert of(last) == [(125, -125, FIRST, 1, 2), (3, -1, SECOND, 1, 2)]
    (longer, *_) = pyramid(12, 32, 4)
    assert of(longer)[0] == (1023, -1023, FIRST, 1, 2)  # as far as a vector can go


def test_a_field_that_is_unknown_has_no_motion() -> None:
    field = unknown(2, 3)
    assert field[:, 0, 0].tolist() == [0, 0, -1, -1, -1]
    assert field.shape == (5, 2, 3)
