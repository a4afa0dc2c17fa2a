"""The blind test: what the page tells, what its keys answer, and what the reader makes of answers."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames

from benchmarks import study
from benchmarks.clips import Clip
from benchmarks.study import Coded, main, tallied, wilson, write_study
from tokcodec.errors import TokcodecError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLIP = Clip("a", "", "", 64, 48, 4, "25", "", "")
SCRIPT = """<script>setTimeout(() => {
const sizes = [...document.querySelectorAll("video")].map(video => video.videoWidth);
for (const key of ["ArrowRight", "ArrowLeft", "Backspace", "ArrowDown", "x", "ArrowLeft"])
    dispatchEvent(new KeyboardEvent("keydown", {key}));
fetch(document.getElementById("save").href).then(blob => blob.text()).then(text => {
    document.body.innerHTML = "";
    document.body.textContent = "FOUND" + JSON.stringify({text, sizes, ended: now}) + "DNUOF";
});
}, 4000);</script>"""


@pytest.fixture
def made(make_clip: MakeClip, tmp_path: Path) -> Path:
    """A study of three pairs."""
    video = make_clip("v.mp4", moving_frames(4))
    pairs = [
        (CLIP, video, Coded("tokcodec", 112, 10, video), Coded(f"{n}", 30, 11, video)) for n in ("av1", "avc", "avc")
    ]
    write_study(tmp_path / "study", pairs, 112, random.Random(0))
    return tmp_path / "study"


def test_the_page_does_not_tell_which_is_which(made: Path) -> None:
    names = [path.name for path in sorted((made / "page").iterdir())]
    sides = ("first", "original", "second")
    assert names == [*(f"{i:03}-{side}.mp4" for i in range(3) for side in sides), "index.html"]
    page = (made / "page" / "index.html").read_text()
    assert not re.search("tokcodec|av1|avc|http", page)
    key = json.loads((made / "key.json").read_text())
    assert len({tuple(pair[side]["codec"] for side in ("first", "second")) for pair in key["pairs"]}) > 1


def test_keys_answer_in_a_browser(made: Path) -> None:
    if BROWSER is None:
        pytest.skip("no chromium")
    page = made / "page" / "index.html"
    page.write_text(page.read_text().replace("</html>", f"{SCRIPT}</html>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    options += [f"--user-data-dir={made / 'profile'}", "--virtual-time-budget=20000"]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=600)
    match = re.search("FOUND({.*})DNUOF", done.stdout, re.DOTALL)
    assert match, done.stderr[-500:]
    found = json.loads(unescape(match[1]))
    key = json.loads((made / "key.json").read_text())
    answers = {"0": "second", "1": "same", "2": "first"}
    assert json.loads(found["text"]) == {"study": key["study"], "answers": answers}
    assert (found["sizes"], found["ended"]) == ([64, 64, 64], 3)


def test_answers_are_counted(made: Path, tmp_path: Path) -> None:
    key = json.loads((made / "key.json").read_text())
    ours = [next(side for side in ("first", "second") if pair[side]["codec"] == "tokcodec") for pair in key["pairs"]]
    others = [{pair[side]["codec"] for side in ("first", "second")} - {"tokcodec"} for pair in key["pairs"]]
    people = [
        {str(i): side for i, side in enumerate(ours)},
        {str(i): "same" for i in range(3)},
        {str(i): "second" if side == "first" else "first" for i, side in enumerate(ours)},
    ]
    files = [tmp_path / f"{i}.json" for i in range(3)]
    for file, answers in zip(files, people, strict=True):
        file.write_text(json.dumps({"study": key["study"], "answers": answers}))
    found = tallied(key, [(file, json.loads(file.read_text())) for file in files])
    count = others.count({"avc"})
    assert found["avc"] == {"tokcodec": count, "other": count, "neither": count}
    result = CliRunner().invoke(main, ["read", str(made / "key.json"), *map(str, files)])
    assert result.exit_code == 0
    assert "against av1: 50 % prefer tokcodec (13 to 87); 1 for it, 1 against, 1 no difference" in result.output


def test_the_interval_is_that_of_wilson() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "this is no object of JSON"),
        ('{"study": "another", "answers": {}}', "these are answers to another study"),
        ('{"study": "ID", "answers": {"0": "third"}}', "0: 'third' is no answer"),
        ('{"study": "ID", "answers": {"3": "same"}}', "3: 'same' is no answer"),
        ('{"study": "ID", "answers": {"-1": "same"}}', "-1: 'same' is no answer"),
        ('{"study": "ID"}', "there are no answers"),
    ],
)
def test_a_file_that_holds_no_answers_is_one_line(made: Path, tmp_path: Path, text: str, message: str) -> None:
    key = json.loads((made / "key.json").read_text())
    (tmp_path / "bad.json").write_text(text.replace("ID", key["study"]))
    result = CliRunner().invoke(main, ["read", str(made / "key.json"), str(tmp_path / "bad.json")])
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_a_study_is_made_of_streams_with_at_least_as_many_bytes(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("clip.mp4", moving_frames(6, 96, 128))
    options = ["--codecs", "avc", "--frames", "6", "--step", "40", "--work", str(tmp_path / "work")]
    argv = ["make", str(clip), "--out", str(tmp_path / "study"), *options]
    result = CliRunner().invoke(main, argv)
    assert result.exit_code == 0, result.output
    (pair,) = json.loads((tmp_path / "study" / "key.json").read_text())["pairs"]
    sizes = {pair[side]["codec"]: pair[side]["bytes"] for side in ("first", "second")}
    assert sizes["avc"] >= sizes["tokcodec"] > 0
    assert study.read_json(tmp_path / "study" / "key.json")["step"] == 40
    again = CliRunner().invoke(main, argv)
    assert (again.exit_code, again.output) == (1, f"Error: {tmp_path / 'study'} exists\n")


def test_a_key_that_is_none_is_told(made: Path, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("{}")
    (tmp_path / "a.json").write_text('{"study": "a"}')
    result = CliRunner().invoke(main, ["read", str(tmp_path / "key.json"), str(tmp_path / "a.json")])
    assert (result.exit_code, "this is no key of a study" in result.output) == (1, True)
    with pytest.raises(TokcodecError):
        study.read_json(tmp_path / "none.json")
