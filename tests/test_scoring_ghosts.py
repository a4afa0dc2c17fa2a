"""Ghosts of pictures whose edges can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.scoring.ghosts import ghosts


def step(column: int, height: int = 20) -> np.ndarray:
    """18x18 pixels, one block: grey, brighter from a column on."""
    picture = np.full((18, 18, 3), 100, np.uint8)
    picture[:, column:] += np.uint8(height)
    return picture


def test_an_edge_that_the_original_has_not_is_a_ghost() -> None:
    flat = step(18)
    # a gradient of 80 in two of 16 columns, 60 more than is seen; a flat original counts as 20 everywhere
    assert ghosts(flat, step(9)) == pytest.approx(100 * 60**2 * 2 / 16 / 20**2)
    assert ghosts(flat, step(9, 5)) == 0  # too faint
    assert ghosts(step(9), flat) == 0  # lost is not added


def test_an_edge_that_has_moved_little_is_none() -> None:
    assert ghosts(step(9), step(9)) == 0
    assert ghosts(step(7), step(9)) == 0
    # of its two columns one is more than 2 from those of the original, which has 80 in two of 16
    assert ghosts(step(6), step(9)) == pytest.approx(100 * 60**2 / 16 / (80**2 * 2 / 16))
    assert ghosts(step(9).swapaxes(0, 1), step(12).swapaxes(0, 1)) == pytest.approx(28.125)


def test_a_doubled_picture_has_ghosts_where_a_softer_one_of_the_same_error_has_few() -> None:
    true = np.full((98, 98, 3), 100.0)
    true[32:64, 32:64] = 160
    doubled = (true + np.roll(true, 10, 1)) / 2
    softer = sum(np.roll(true, (y, x), (0, 1)) for y in range(-7, 8) for x in range(-7, 8)) / 15**2
    pictures = [picture.astype(np.uint8) for picture in (true, doubled, softer)]
    errors = [np.square(picture.astype(float) - pictures[0]).mean() for picture in pictures]
    assert errors[2] == pytest.approx(errors[1], rel=0.05)
    assert ghosts(pictures[0], pictures[1]) > 10 * ghosts(pictures[0], pictures[2])


def test_a_picture_without_a_block_has_no_score() -> None:
    assert ghosts(step(9)[:17], step(9)[:17]) is None
