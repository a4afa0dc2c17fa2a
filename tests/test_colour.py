"""Names of colour code points."""

import re

import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from tokcodec.colour import MATRICES, PRIMARIES, TRANSFERS, colour_name


def bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def test_known_and_unknown_codes() -> None:
    assert colour_name(1, 1, 1) == "bt709/bt709/bt709"
    assert colour_name(9, 16, 9) == "bt2020/smpte2084/bt2020nc"
    assert colour_name(2, 2, 6) == "unspecified/unspecified/smpte170m"
    assert colour_name(99, 18, 3) == "99/arib-std-b67/3"


@pytest.mark.parametrize(("names", "codes"), [(PRIMARIES, ColorPrimaries), (TRANSFERS, ColorTrc)])
def test_names_are_those_of_ffmpeg(names: dict[int, str], codes: type) -> None:
    """Where it has one name for a code; for the rest it has synonyms (gamma22 is bt470m)."""
    theirs = {int(code): bare(code.name) for code in codes}  # type: ignore[attr-defined]
    same = [code for code in names if bare(names[code]) == theirs.get(code)]
    assert len(same) >= 9
    assert set(theirs.values()) & {bare(name) for name in names.values()} == {theirs[code] for code in same}


def test_matrices_that_pixels_are_converted_with_have_names() -> None:
    assert {code: MATRICES[code] for code in (1, 4, 7)} == {1: "bt709", 4: "fcc", 7: "smpte240m"}
    assert {Colorspace.ITU709, Colorspace.FCC, Colorspace.SMPTE240M} == {1, 4, 7}
