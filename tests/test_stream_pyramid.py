"""The order of frames, and the spans that it is made of."""

from __future__ import annotations

import pytest

from tokcodec.stream.pyramid import ANCHOR, LEAF, MIDDLE, SPANS, Place, order, pyramid, uniform


def test_a_span_of_four_in_the_order_of_coding() -> None:
    assert pyramid(0, 4, -1) == [
        Place(frame=4, first=0, second=-1, depth=0, parent=0),
        Place(frame=2, first=0, second=4, depth=1, parent=4),
        Place(frame=1, first=0, second=2, depth=2, parent=2),
        Place(frame=3, first=2, second=4, depth=2, parent=2),
    ]


def test_a_span_of_eight_behind_another() -> None:
    places = pyramid(4, 8, 0)
    assert [tuple(place) for place in places] == [
        (12, 4, 0, 0, 4),
        (8, 4, 12, 1, 12),
        (6, 4, 8, 2, 8),
        (5, 4, 6, 3, 6),
        (7, 6, 8, 3, 6),
        (10, 8, 12, 2, 8),
        (9, 8, 10, 3, 10),
        (11, 10, 12, 3, 10),
    ]
    assert [place.distance for place in places] == [8, 4, 2, 1, 1, 2, 1, 1]
    assert [place.kind for place in places] == [ANCHOR, MIDDLE, MIDDLE, LEAF, LEAF, MIDDLE, LEAF, LEAF]


def test_spans_of_one_and_two_follow_one_another() -> None:
    assert [tuple(place) for place in order([1, 2, 1])] == [
        (1, 0, -1, 0, 0),
        (3, 1, 0, 0, 1),
        (2, 1, 3, 1, 3),
        (4, 3, 1, 0, 3),
    ]
    assert pyramid(0, 1, -1)[0].kind == ANCHOR, "though it is one frame from its reference"


def test_a_span_is_asked_for_when_the_one_before_is_done() -> None:
    asked = []

    def spans() -> object:
        for span in (2, 1):
            asked.append(span)
            yield span

    places = order(spans())
    assert [next(places).frame for _ in range(2)] == [2, 1]
    assert asked == [2]
    assert next(places).frame == 3
    assert asked == [2, 1]


@pytest.mark.parametrize("span", SPANS)
def test_what_a_frame_is_predicted_from_is_coded_before(span: int) -> None:
    places, done = list(order([1, span, span])), {0}
    for place in places:
        assert place.first in done
        assert place.second in done | {-1}
        assert place.parent in done
        assert place.first < place.frame
        assert (place.depth > 0) == (place.second > place.frame)
        assert place.distance in SPANS
        done.add(place.frame)
    assert done == set(range(2 + 2 * span))
    assert len(places) == 1 + 2 * span


def test_uniform_spans_leave_shorter_ones_at_the_end() -> None:
    assert uniform(1, 32) == []
    assert uniform(9, 4) == [4, 4]
    assert uniform(12, 4) == [4, 4, 2, 1]
    assert uniform(34, 32) == [32, 1]
    assert uniform(24, 16) == [16, 4, 2, 1]
    assert uniform(4, 1) == [1, 1, 1]
