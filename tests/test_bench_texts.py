"""What the documents quote of the results is what the result files say."""

from __future__ import annotations

import re

import pytest

from benchmarks import texts
from benchmarks.texts import FILES, MARKED, ROOT, TEXTS, filled


@pytest.mark.parametrize("name", FILES)
def test_the_documents_say_what_the_results_say(name: str) -> None:
    text = (ROOT / name).read_text()
    assert {match[2] for match in MARKED.finditer(text)}, "nothing is quoted"
    assert filled(text) == text, "run python -m benchmarks.texts"


def test_readme_and_the_page_of_the_benchmark_quote_all_there_is_once() -> None:
    pages = [(ROOT / name).read_text() for name in ("README.md", "docs/benchmark.md")]
    marks = re.findall(r"<!-- benchmarks: (\w+) -->", "".join(pages))
    assert sorted(marks) == sorted(TEXTS)


def test_longer_clips_have_a_table_of_scores_and_one_of_evenness() -> None:
    points = {key: group for key, group in texts._points().items() if key[0].startswith("02_cups")}
    points |= {(clip, "vvc-ra"): group for (clip, codec), group in points.items() if codec == "vvc-visual"}
    text = texts.longer_of("one clip", points)
    assert text.startswith("Of one clip:\n\n| bpp | codec | LPIPS (AlexNet) |")
    assert "\n\n| step | bpp | codec | fade, dB | pop | pulse, dB | ghosts, % | clips |\n" in text
    even = text[text.index("| step |") :].splitlines()[2:]
    assert {row.split(" | ")[0] for row in even} == {"| 160"}, "the middle step"
    assert [row for row in even if "vvc-ra (closed GOPs of 32 handicap it by about 30 % of bits)" in row]


def test_a_number_that_was_changed_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEXTS, "table", lambda: "| 0.25 |\n")
    page = "Before.\n<!-- benchmarks: table -->\n| 0.99 |\n<!-- end -->\nAfter 0.99.\n"
    assert filled(page) == page.replace("| 0.99 |", "| 0.25 |")
    assert filled(filled(page)) == filled(page)


def test_what_is_better_is_bold() -> None:
    assert texts._difference("lpips_alex", -0.0625) == "**-0.062**"
    assert texts._difference("lpips_alex", 0.0625) == "+0.062"
    assert texts._difference("vmaf", 1.26) == "**+1.3**"
    assert texts._difference("psnr_rgb_db", -0.001) == "+0.00"
