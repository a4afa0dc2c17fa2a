"""The candidates of a motion block, in order."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.stream.fields import candidates, predicted


def offered(
    vector: np.ndarray, kind: np.ndarray, block: tuple[int, int, int], temporal: int | None = None
) -> list[tuple[int, ...]]:
    """Candidates of a block; `temporal` is the number in every place of the temporal field, whose kind is SECOND."""
    out = np.empty((5, 3), np.int16)
    other = np.full_like(vector, temporal or 0), np.ones_like(kind)
    count = candidates(vector, kind, *block, *other, temporal is not None, out)
    return [tuple(int(n) for n in row) for row in out[:count]]


@pytest.fixture
def field() -> tuple[np.ndarray, np.ndarray]:
    """4x4 cells, the vector of a cell is (row, column) and its kind 2, those from row 2 on are not decoded."""
    kind = np.full((4, 4), 2, np.int8)
    kind[2:] = -1
    return np.mgrid[:4, :4].astype(np.int16), kind


def test_candidates_come_in_order(field: tuple[np.ndarray, np.ndarray]) -> None:
    assert offered(*field, (1, 1, 1), temporal=7) == [(1, 0, 2), (0, 1, 2), (0, 2, 2), (7, 7, 1), (0, 0, 0)]
    assert offered(*field, (1, 1, 1)) == [(1, 0, 2), (0, 1, 2), (0, 2, 2), (0, 0, 0), (0, 0, 2)]
    assert offered(*field, (2, 0, 2), temporal=7) == [(1, 0, 2), (1, 2, 2), (7, 7, 1), (0, 0, 0), (0, 0, 2)]


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
