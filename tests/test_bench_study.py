"""The blind test: what the page gives away, what it shows in a browser, and how its answers are counted."""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import frames_of
from test_bench_page import BROWSER

from benchmarks import study
from benchmarks.codecs import MODES
from benchmarks.scoring import Video
from benchmarks.study import interval, main, preferences
from benchmarks.tools import Tools
from tokcodec.scoring.vmaf import find_ffmpeg

FFMPEG = find_ffmpeg() or ""
BYTES = 1500
STAND_IN = f"""#!/bin/sh
if [ "$1" = encode ]; then head -c {BYTES} /dev/zero > "$3"; else cp "$(dirname "$0")/red.mkv" "$3"; fi
echo '{{"seconds": 1, "network_s": 0, "peak_vram_bytes": 0}}'
"""
DRIVE = """<script>addEventListener("load", () => {
const canvases = [...document.querySelectorAll("canvas")], seen = [], said = ["ArrowLeft", "ArrowDown", "ArrowRight"];
const key = name => dispatchEvent(new KeyboardEvent("keydown", {key: name}));
let blob = null, before = "", undone = false;
URL.createObjectURL = given => { blob = given; return "blob:x"; };
document.getElementById("begin").click();
const timer = setInterval(async () => {
    const video = canvases.map(canvas => [...canvas.getContext("2d").getImageData(9, 9, 1, 1).data]);
    const progress = document.getElementById("progress").textContent;
    if (video.some(([, , , alpha]) => !alpha) || progress === before) return;
    before = progress;
    if (!undone && seen.length === 1) { undone = true; key("Backspace"); seen.pop(); return; }
    seen.push(video.map(([red, green]) => red > 200 && green < 60));
    key(said[seen.length - 1]);
    if (seen.length < 3) return;
    clearInterval(timer);
    const text = await blob.text(), name = document.getElementById("save").download;
    const found = {seen, name, answers: JSON.parse(text), end: !document.getElementById("end").hidden};
    fetch("found", {method: "POST", body: JSON.stringify(found)});
}, 50);
});</script>"""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def filmed(path: Path, source: str) -> Path:
    """A lossless file of 4 frames of 128x96 that FFmpeg draws."""
    options = ["-frames:v", "4", "-c:v", "ffv1", "-pix_fmt", "bgr0"]
    subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", f"{source}:s=128x96:r=30", *options, path], check=True)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of three clips, in which tokcodec makes all red."""
    folder = tmp_path_factory.mktemp("study")
    filmed(folder / "red.mkv", "color=red")
    clips = [filmed(folder / f"clip{i}.mkv", f"testsrc2=alpha={255 - i}") for i in range(3)]
    program = folder / "tokcodec"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (folder / "weights.safetensors").write_bytes(b"some")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKCODEC_WEIGHTS", str(folder / "weights.safetensors"))
        patch.setattr(study, "find_tools", lambda: Tools(FFMPEG, str(program)))
        places = ["--out", folder / "study", "--work", folder / "work", "--threads", "1", "--seed", "2"]
        result = invoke("make", *clips, "--codecs", "avc", *places)
    assert result.exit_code == 0, result.output
    return folder / "study"


def posted(folder: Path, page: str) -> dict[str, Any]:
    """What a page of a folder sends back when it is open in a browser, in real time: videos have to play."""
    if BROWSER is None:
        pytest.skip("no chromium")
    found: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,900"]
    options += [f"--user-data-dir={folder.parent / 'user'}", "--autoplay-policy=no-user-gesture-required"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{page}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([BROWSER, *options, address], start_new_session=True, **quiet) as browser:
            try:
                return found.get(timeout=300)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                server.shutdown()


def test_nothing_in_the_folder_tells_which_is_which(made: Path) -> None:
    key = json.loads((made.parent / "study.key.json").read_text())
    files = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    assert files == sorted(["index.html", *(f"videos/{trial}.webm" for trial in key["trials"])])
    assert len(files) == 1 + 3
    orders = [trial["codecs"].index("tokcodec") for trial in key["trials"].values()]
    assert set(orders) == {0, 1}
    for path in made.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert not re.search(b"tokcodec|x264|h264|clip[0-9]", data, re.IGNORECASE), path
    page = (made / "index.html").read_text()
    assert not re.findall(r"https?:|(?:src|href)=|@import", page.replace('save").href =', ""))
    for trial in key["trials"].values():
        ours = trial["codecs"].index("tokcodec")
        assert trial["bytes"][ours] == BYTES <= trial["bytes"][1 - ours]
        assert trial["ratio"] == trial["bytes"][1 - ours] / BYTES
        frames = frames_of(made / "videos" / f"{next(k for k, each in key['trials'].items() if each is trial)}.webm")
        assert [frame.shape for frame in frames] == [(3 * 96, 128, 3)] * 4
        reds = [bool((frames[0][96 * part + 20 : 96 * part + 76, :, 2] < 60).all()) for part in range(3)]
        assert reds[1 + ours]
        assert reds.count(True) == 1


def test_the_original_is_shown_without_loss_that_matters(made: Path) -> None:
    video = next((made / "videos").glob("*.webm"))
    key = json.loads((made.parent / "study.key.json").read_text())["trials"][video.stem]
    name = key["clip"].split("_")[0]
    reference = Video(made.parent / "work/references" / f"{name}_150.mkv", rgb=True)
    planes = []
    for path, picture in ((reference.path, reference.to_yuv), (video, "crop=128:96:0:0")):
        argv = [FFMPEG, "-v", "error", "-i", path, "-vf", picture, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"]
        planes.append(np.frombuffer(subprocess.run(argv, check=True, capture_output=True).stdout, np.uint8))
    true, seen = planes
    assert len(true) == len(seen) == 4 * 128 * 96 * 3 // 2
    assert 10 * np.log10(255**2 / ((true - seen.astype(float)) ** 2).mean()) > 42


def test_the_page_shows_the_pairs_and_saves_the_answers(made: Path) -> None:
    page = (made / "index.html").read_text()
    (made / "driven.html").write_text(page.replace("</html>", f"{DRIVE}</html>"))
    try:
        found = posted(made, "driven.html?seed=5")
    finally:
        (made / "driven.html").unlink()
    assert found["end"]
    assert found["name"].startswith("answers-")
    (made.parent / "a.json").write_text(json.dumps(found["answers"]))
    key = json.loads((made.parent / "study.key.json").read_text())["trials"]
    answers = found["answers"]["answers"]
    assert sorted(answer["trial"] for answer in answers) == sorted(key)
    for (left, middle, right), answer, said in zip(found["seen"], answers, ("left", "same", "right"), strict=True):
        assert not middle
        assert left != right, "one side is tokcodec, which is red here"
        ours = key[answer["trial"]]["codecs"].index("tokcodec") + 1
        assert left == (answer["left"] == ours)
        chosen = {"left": answer["left"], "same": 0, "right": 3 - answer["left"]}[said]
        assert answer["better"] == chosen
        assert answer["seconds"] >= 0
    result = invoke("read", made.parent / "a.json", "--key", made.parent / "study.key.json")
    assert result.exit_code == 0, result.output
    assert "| avc | 160 | all |" in result.stdout


def test_a_study_is_not_overwritten_and_no_key_lies_in_it(made: Path, tmp_path: Path) -> None:
    clip = made.parent / "clip0.mkv"
    result = invoke("make", clip, "--out", made)
    assert result.exit_code == 1
    assert "exists" in result.stderr
    result = invoke("make", clip, "--out", tmp_path / "new", "--key", tmp_path / "new/key.json")
    assert result.exit_code == 1
    assert "must not be in the folder" in result.stderr
    assert invoke("make", clip, "--codecs", "tokcodec").exit_code == 2


TRIALS: dict[str, dict[str, Any]] = {
    "a": {"clip": "one", "step": 160, "codecs": ["tokcodec", "av1"], "ratio": 1.0},
    "b": {"clip": "two", "step": 160, "codecs": ["av1", "tokcodec"], "ratio": 1.5},
}
KEY = {"study": "s", "trials": TRIALS}


def test_answers_are_counted_person_by_person() -> None:
    people = {"p": {"a": 1, "b": 2}, "q": {"a": 2, "b": 0}, "r": {"b": 1}}
    first, *rest = preferences(KEY, people).rows
    # 1, 0.25 and 0: the mean of people, and not of answers
    assert first[:10] == ["av1", "160", "all", "1.250", "3", "5", "2", "1", "2", "42%"]
    assert [(row[2], *row[4:10]) for row in rest] == [
        ("one", "2", "2", "1", "0", "1", "50%"),
        ("two", "3", "3", "1", "1", "1", "50%"),
    ]
    assert not preferences(KEY, {"p": {"a": 1}}).rows[0][10], "one person has no interval"


def test_the_interval_is_near_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.2, 400)
    low, high = interval(list(values)) or (0, 0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)
    assert interval([0.5, 0.5]) == (0.5, 0.5)
    assert interval([1]) is None


GOOD = {"study": "s", "person": "p", "answers": [{"trial": "a", "better": 1}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no answers of a study"),
        ("[]", "no answers of a study"),
        ("\xff", "no answers of a study"),
        ('{"study": "s", "person": "p", "answers": 5}', "no answers of a study"),
        ('{"study": "s", "person": "p", "answers": [{"trial": ["a"], "better": 1}]}', "no answers of a study"),
        (json.dumps(GOOD | {"study": "t"}), "to another study"),
        (json.dumps(GOOD | {"answers": []}), "no answers, or two"),
        (json.dumps(GOOD | {"answers": GOOD["answers"] * 2}), "no answers, or two"),
        (json.dumps(GOOD | {"answers": [{"trial": "c", "better": 1}]}), "an answer is to no pair"),
        (json.dumps(GOOD | {"answers": [{"trial": "a", "better": 3}]}), "an answer is to no pair"),
        (json.dumps(GOOD | {"answers": [{"trial": "a", "better": [1]}]}), "an answer is to no pair"),
    ],
)
def test_answers_that_are_none_are_a_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    (tmp_path / "bad.json").write_text(text, encoding="latin-1")
    (tmp_path / "good.json").write_text(json.dumps(GOOD | {"person": "q"}))
    result = invoke("read", tmp_path / "good.json", tmp_path / "bad.json", "--key", tmp_path / "key.json")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'bad.json'}: ")
    assert message in result.stderr
    assert not result.stdout


def test_a_person_is_counted_once_and_a_key_is_a_key(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(GOOD))
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    pair = tmp_path / "one.json", tmp_path / "two.json"
    result = invoke("read", *pair, "--key", tmp_path / "key.json")
    assert result.exit_code == 1
    assert "given twice" in result.stderr
    result = invoke("read", *pair, "--key", pair[0])
    assert result.exit_code == 1
    assert "not the key of a study" in result.stderr


def test_the_modes_that_take_part_have_rates() -> None:
    assert study.rates_of(MODES["hevc-visual"]) == (1, 51)
    assert study.rates_of(MODES["av1"]) == study.rates_of(MODES["vvc-visual"]) == (1, 63)
