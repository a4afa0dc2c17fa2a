"""A run from the command line to the page, with a stand-in for tokcodec and real reference encoders."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import MakeClip, moving_frames
from PIL import Image

from benchmarks import provenance, report, run
from benchmarks.bdrate import MIN_POINTS
from benchmarks.clips import dataset_sources, file_source, prepare
from benchmarks.codecs import FAST, LOOP, MODES
from benchmarks.points import read_points, write_point
from benchmarks.provenance import PACKAGE, code_sha256, digest_of_files, ffmpeg_of, scorer_sha256, source_of
from benchmarks.report import write_report, write_tables
from benchmarks.scoring import Remembering, Video
from benchmarks.sets import LONG_FRAMES, SETS, ClipSet
from benchmarks.tables import load_points
from benchmarks.tools import ToolError, Tools, find_tools
from tokcodec.codec.chunking import CHUNK_FRAMES
from tokcodec.errors import TokcodecError
from tokcodec.scoring.scores import METRICS
from tokcodec.scoring.stability import FADE_FRAMES
from tokcodec.scoring.stlpips import STLPIPS
from tokcodec.scoring.vmaf import find_ffmpeg
from tokcodec.training.judged import JudgedClip, judged_clips

FFMPEG = find_ffmpeg() or ""
COPIES = """#!/bin/sh
echo "$@" >> "$0.log"
cp "$2" "$3" && echo '{"seconds": 0.5, "network_s": 0.25, "peak_vram_bytes": 0}'
"""
FAILS = """#!/bin/sh
echo "Error: the weights are gone" >&2
exit 1
"""


class Runner:
    """Runs the benchmark in a folder, with a script in tokcodec's place."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.program = folder, folder / "tokcodec"
        monkeypatch.setattr(run, "find_tools", lambda: Tools(FFMPEG, str(self.program)))
        (folder / "weights.safetensors").write_bytes(b"some")
        monkeypatch.setenv("TOKCODEC_WEIGHTS", str(folder / "weights.safetensors"))
        monkeypatch.delenv("TOKCODEC_LPIPS_DIR", raising=False)
        monkeypatch.setattr(run, "borders_of", lambda stream: [])  # what the scripts copy is no stream

    def __call__(self, script: str, *arguments: str | Path) -> Result:
        self.program.write_text(script)
        self.program.chmod(0o755)
        places = ["--out", self.folder / "out", "--work", self.folder / "work", "--threads", "1"]
        without_network = ["--lpips", "alex", "--lpips-dir", self.folder]
        return CliRunner().invoke(run.main, list(map(str, [*arguments, *places, *without_network])))

    def points(self) -> dict[str, Any]:
        return read_points(self.folder / "out")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(tmp_path, monkeypatch)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made, no page: its charts take longer than all else of a small run."""
    monkeypatch.setattr(
        run, "write_report", lambda results, frames: write_tables(load_points(results), results, "hevc-ra")
    )


@pytest.fixture
def clip(make_clip: MakeClip) -> Path:
    return make_clip("clip.mp4", moving_frames(6, 96, 128))


@pytest.mark.usefixtures("unreported")
def test_a_point_says_what_was_measured(bench: Runner, clip: Path) -> None:
    result = bench(COPIES, clip, "--frames", "4", "--codecs", "tokcodec,hevc-ra", "--rates", "tokcodec=8")
    assert result.exit_code == 0, result.output
    points = bench.points()
    assert len(points) == 1 + 5
    ours = points["clip_128x96_4f__tokcodec__8"]
    reference = bench.folder / "work/references/clip_4.mkv"
    assert ours["bytes"] == reference.stat().st_size
    assert ours["bpp"] == 8 * reference.stat().st_size / (128 * 96 * 4)
    assert ours["metrics"]["psnr_rgb_db"]["mean"] == 100
    assert ours["decode"]["started_fps"] == 8
    assert len(ours["clip"]["sha256"]) == len(ours["clip"]["pixels_sha256"]) == 64
    assert ours["program"] == {"code_sha256": code_sha256(), "weights_sha256": hashlib.sha256(b"some").hexdigest()}
    other = points["clip_128x96_4f__hevc-ra__20"]
    assert other["program"] == ffmpeg_of(Tools(FFMPEG, "tokcodec"))
    assert other["encoder_version"]
    assert not {"code_sha256", "weights_sha256"} & (other["program"] | other["versions"]).keys()
    assert ours["scored_by"] == other["scored_by"]
    assert set(ours["scored_by"]) >= set(ours["metrics"])
    assert ours["pixels_sha256"] == ours["clip"]["pixels_sha256"]
    assert ours["stream_sha256"] == hashlib.sha256(reference.read_bytes()).hexdigest()
    assert "going on without it: LPIPS: no alexnet_features.safetensors" in result.stderr
    assert str(bench.folder) not in json.dumps(points)  # no path of this machine is published


@pytest.mark.usefixtures("unreported")
def test_a_finished_point_is_not_measured_again(bench: Runner, clip: Path) -> None:
    arguments = (clip, "--codecs", "tokcodec", "--rates", "tokcodec=8")
    log = bench.folder / "tokcodec.log"
    bench(COPIES, *arguments)
    bench(COPIES, *arguments)
    assert len(log.read_text().splitlines()) == 2  # encode and decode, once
    (bench.folder / "weights.safetensors").write_bytes(b"other")
    bench(COPIES, *arguments)
    assert len(log.read_text().splitlines()) == 4
    bench(COPIES, *arguments, "--force")
    assert len(log.read_text().splitlines()) == 6


class Scored:
    """Which scores of which points a run computes: those of the calls since it was asked last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, set[str]] = {}
        self.inner = run.scored
        monkeypatch.setattr(run, "scored", self)

    def __call__(self, bench: Any, clip: Any, original: Video, result: Video, missing: set[str]) -> dict[str, Any]:
        self.found["ours" if result.rgb else "other"] = set(missing)
        return self.inner(bench, clip, original, result, missing)

    def last(self) -> dict[str, set[str]]:
        found, self.found = self.found, {}
        return found


@pytest.mark.usefixtures("unreported")
def test_what_is_scored_again_is_what_has_changed(bench: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (clip, "--frames", "3", "--codecs", "tokcodec,hevc-ra", "--rates", "tokcodec=8", "--rates=hevc-ra=44")
    log, scores = bench.folder / "tokcodec.log", Scored(monkeypatch)

    def again(script: str = COPIES) -> tuple[int, dict[str, set[str]]]:
        """How often tokcodec was called, and what was scored."""
        log.write_text("")
        result = bench(script, *arguments)
        assert result.exit_code == 0, result.output
        return len(log.read_text().splitlines()), scores.last()

    calls, first = again()
    every = first["ours"]
    assert (calls, first) == (2, {"ours": every, "other": every})
    assert {"psnr_rgb_db", "temporal_psnr_db", "ghosts", "psnr_y_db"} <= every
    before = bench.points()
    assert again() == (0, {})

    monkeypatch.setattr(run, "code_sha256", lambda: "other code")
    assert again() == (2, {"ours": set()}), "the same pixels have the same scores"
    after = bench.points()
    (ours,) = [name for name in after if "tokcodec" in name]
    assert after[ours]["program"]["code_sha256"] == "other code"
    assert after[ours]["metrics"] == before[ours]["metrics"]
    assert {name: point for name, point in after.items() if name != ours} == {
        name: point for name, point in before.items() if name != ours
    }

    whole = run.scorer_sha256
    monkeypatch.setattr(run, "scorer_sha256", lambda name, *rest: "mended" if name == "ghosts" else whole(name, *rest))
    calls, found = again()
    assert (calls, found) == (1, {"ours": {"ghosts"}, "other": {"ghosts"}}), "decoded, and not coded again"

    monkeypatch.setattr(run, "ffmpeg_of", lambda _: {"version": "9", "sha256": "other"})
    assert again() == (0, {"other": set()})

    monkeypatch.setattr(run, "code_sha256", lambda: "code of other pixels")
    brighter = COPIES.replace('cp "$2" "$3"', f'"{FFMPEG}" -v error -y -i "$2" -vf lutrgb=r=val+9 -f matroska "$3"')
    assert again(brighter.replace("-f matroska", "-c:v ffv1 -pix_fmt bgr0 -f matroska")) == (2, {"ours": every})
    assert bench.points()[ours]["pixels_sha256"] != after[ours]["pixels_sha256"]
    assert bench.points()[ours]["metrics"]["psnr_rgb_db"]["mean"] < 40


@pytest.mark.usefixtures("unreported")
def test_a_stream_that_is_known_is_not_coded_again(bench: Runner, clip: Path) -> None:
    arguments = (clip, "--frames", "3", "--codecs", "tokcodec", "--rates", "tokcodec=8")
    bench(COPIES, *arguments)
    (before,) = bench.points().values()
    (bench.folder / "out/points.json").unlink()
    log = bench.folder / "tokcodec.log"
    log.write_text("")
    bench(COPIES, *arguments)
    (after,) = bench.points().values()
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["decode"]
    assert (after["encode"], after["bytes"], after["metrics"]) == (before["encode"], before["bytes"], before["metrics"])
    (stream,) = (bench.folder / "work/streams").glob("*.tokc")
    stream.write_bytes(b"damaged")
    (bench.folder / "out/points.json").unlink()
    bench(COPIES, *arguments)
    assert next(iter(bench.points().values()))["stream_sha256"] == before["stream_sha256"]


def test_comments_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "one": 'def f(x):\n    """Doc."""\n    return x  # a comment\n',
        "two": '"""Module."""\n\ndef f(x):\n    return (x)\n',
        "other": "def f(x):\n    return x + 1\n",
    }
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in texts.items():
        (tmp_path / f"judge_{name}.py").write_text(text)
    one, two, other = (source_of(importlib.import_module(f"judge_{name}")) for name in texts)
    assert one.strip() == two.strip()
    assert one != other
    assert source_of((1, "a")) == "(1, 'a')"


def test_every_score_has_a_digest_of_its_own_parts() -> None:
    tools = Tools(FFMPEG, "")
    made = run.scorers_of(tools, frozenset({"xpsnr", "libvmaf"}), {})
    assert set(made) == {name for name in METRICS if "lpips" not in name}
    assert made["ghosts"] != made["psnr_rgb_db"] != made["vmaf"]
    judge = Remembering(STLPIPS())
    assert scorer_sha256("stlpips_vgg", tools, judge) == scorer_sha256("stlpips_vgg", tools, judge.judge)


@pytest.mark.usefixtures("unreported")
def test_a_set_brings_its_own_settings(
    bench: Runner, clip: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"tokcodec": (8, 12), "hevc-ra": (44,), "avc": (30,)}
    monkeypatch.setitem(SETS, "long-360p", ClipSet("some", (64, 48), 3, rates, ("clip",)))
    other = make_clip("other.mp4", moving_frames(4, 96, 128))
    result = bench(COPIES, other, clip, "--set", "long-360p", "--codecs", "tokcodec,hevc-ra,av1")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{bench.folder / 'out/long-360p/report.html'}\n"
    titles = ["clip_64x48_3f__hevc-ra__44", "clip_64x48_3f__tokcodec__12", "clip_64x48_3f__tokcodec__8"]
    assert list(read_points(bench.folder / "out/long-360p")) == titles
    result = bench(COPIES, other, "--set", "long-360p")
    assert result.exit_code == 1
    assert "long-360p needs the clips clip, too" in result.stderr


def test_sets_are_of_codecs_and_clips_that_there_are() -> None:
    names = {known.name for known in judged_clips().values()}
    for chosen in SETS.values():
        assert set(chosen.rates) <= set(MODES)
        assert min(map(len, chosen.rates.values())) >= MIN_POINTS, "or there is no BD-rate"
        assert chosen.rates[LOOP] == chosen.rates[FAST] == chosen.rates["tokcodec"], "of the same streams"
        assert set(chosen.names) <= names
    assert LONG_FRAMES > CHUNK_FRAMES + 2 * FADE_FRAMES, "a border lies inside, and the second chunk can fade"


@pytest.mark.usefixtures("unreported")
def test_a_failure_is_told_and_the_run_goes_on(bench: Runner, clip: Path) -> None:
    rates = ("--rates", "tokcodec=8,16", "--rates", "avc=30")
    result = bench(FAILS, clip, "--codecs", "tokcodec,avc", *rates, "--jobs", "2")
    assert result.exit_code == 1
    assert "failed: clip_128x96_6f tokcodec step 8: exit code 1 from tokcodec encode" in result.stderr
    assert "Error: the weights are gone" in result.stderr
    assert "2 of 3 points failed" in result.stderr
    assert list(bench.points()) == ["clip_128x96_6f__avc__30"]


def test_the_report_is_one_file_with_its_pictures(
    bench: Runner, clip: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_clip("other.mp4", moving_frames(4, 96, 128))
    rates = [f"--rates={rates}" for rates in ("tokcodec=8", "hevc-ra=20,28,36,44", "hevc-medium=20,28,36,44")]
    result = bench(COPIES, clip, other, "--frames", "3", "--codecs", "tokcodec,hevc-ra,hevc-medium", *rates)
    assert result.stdout == f"{bench.folder / 'out/report.html'}\n"
    page = (bench.folder / "out/report.html").read_text()
    assert page.count("<svg") == len(next(iter(bench.points().values()))["metrics"])
    assert page.count("<canvas") == 1  # from frame to frame
    assert page.count("<img") == page.count('src="data:image/jpeg;base64,') == page.count("src=")
    tables = (bench.folder / "out/tables.md").read_text()
    assert "## BD-rate against hevc-medium" in tables
    assert "| hevc-ra | " in tables
    assert "## How even it is in time" in tables
    with (bench.folder / "out/points.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (1 + 4 + 4)
    with (bench.folder / "out/bdrate.csv").open() as file:
        rows = {(row["clip"], row["codec"], row["anchor"], row["metric"]): row for row in csv.DictReader(file)}
    assert rows["clip_128x96_3f", "tokcodec", "hevc-ra", "psnr_y_db"]["refused"] == "fewer than 4 points"

    assert "<img" in page
    sha256 = {point["clip"]["sha256"]: point["clip"]["name"] for point in bench.points().values()}
    known = {key: JudgedClip(name, 1, key, "judge", may_show=name == "other") for key, name in sha256.items()}
    monkeypatch.setattr(report, "judged_clips", lambda: known)
    write_report(bench.folder / "out", bench.folder / "work/frames")
    page = (bench.folder / "out/report.html").read_text()
    assert "<h3>other_128x96_3f, tokcodec" in page
    assert "<h3>clip_128x96_3f, tokcodec" not in page
    assert "clip_128x96_3f, frame" not in page


@pytest.mark.usefixtures("unreported")
def test_the_paper_row_stands_beside_ours_on_its_data_set(bench: Runner, make_clip: MakeClip, tmp_path: Path) -> None:
    folder = tmp_path / "mcl"
    folder.mkdir()
    make_clip("videoSRC01_640x360_30.mp4", moving_frames(2, 96, 128)).rename(folder / "videoSRC01.mp4")
    rates = ("--rates", "hevc-ra=20,44", "--rates", "tokcodec=8")
    bench(COPIES, "--dataset", "mcl-jcv", folder, "--size", "640x360", "--codecs", "tokcodec,hevc-ra", *rates)
    tables = (tmp_path / "out/tables.md").read_text()
    assert "## MCL-JCV at 640x360, 0.0384 bpp" in tables
    assert "| MAGVIT-v2 | 0.104 | 26.18 | 0.894 |" in tables


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("clip", {"clip": {"pixels_sha256": "0"}}),
        ("scored_by", {"scored_by": {"vmaf": "0"}}),
        ("program", {"program": {"version": "n8"}}),
        ("command", {"argv": {"encode": ["ffmpeg", "-preset", "fast"]}}),
    ],
)
def test_points_that_cannot_be_compared_are_refused(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    measured = read_points(provenance.ROOT / "benchmarks/results/eval-360p")
    title, other = [title for title in measured if title.startswith("02_cups") and "hevc-medium" in title][:2]
    for one in (title, other):
        write_point(tmp_path, one, measured[one])
    assert [len(group) for group in load_points(tmp_path).values()] == [2]
    for key, value in change.items():
        measured[title][key] |= value
    write_point(tmp_path, title, measured[title])
    with pytest.raises(TokcodecError, match=f"its {name} is not that of 02_cups"):
        load_points(tmp_path)


def test_results_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="no measured points"):
        write_report(tmp_path, tmp_path)
    write_point(tmp_path, "x", {})
    with pytest.raises(TokcodecError, match=r"points\.json: x is not a measured point"):
        write_report(tmp_path, tmp_path)
    (tmp_path / "points.json").write_text("{")
    with pytest.raises(TokcodecError, match=r"points\.json: "):
        write_report(tmp_path, tmp_path)


def test_points_are_a_line_each_in_order(tmp_path: Path) -> None:
    for title, point in (("b", {"bpp": 1.5}), ("a", {}), ("b", {"bpp": 2, "rate": [1, 2]})):
        write_point(tmp_path, title, point)
    assert (tmp_path / "points.json").read_text() == '{\n"a": {},\n"b": {"bpp":2,"rate":[1,2]}\n}\n'
    assert list(tmp_path.iterdir()) == [tmp_path / "points.json"]


def test_all_that_is_quoted_is_made_from_the_one_file(tmp_path: Path) -> None:
    """The tables of the repository are those of its points."""
    results = provenance.ROOT / "benchmarks/results/eval-360p"
    write_tables(load_points(results), tmp_path, "hevc-medium")
    for name in ("tables.md", "points.csv", "bdrate.csv"):
        assert (tmp_path / name).read_bytes() == (results / name).read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--codecs", "h263"],
        ["--rates", "avc=x"],
        ["--size", "big"],
        ["--set", "long-360p", "--size", "64x48"],
        ["--set", "long"],
    ],
)
def test_a_wrong_command_line_is_a_usage_error(bench: Runner, clip: Path, arguments: list[str]) -> None:
    files = [clip] if arguments else []
    assert bench(COPIES, *files, *arguments).exit_code == 2


def test_data_sets_are_found_in_their_layouts(tmp_path: Path) -> None:
    for name in ("480p/bear/00000.jpg", "480p/bear/00001.jpg", "Full-Resolution/bear/00000.jpg"):
        path = tmp_path / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (bear,) = dataset_sources("davis", tmp_path)
    assert (bear.name, len(bear.files)) == ("bear", 2)
    assert bear.open == ("-framerate", "24", "-i", str(tmp_path / "JPEGImages/480p/bear/%05d.jpg"))
    raw = file_source(Path("Beauty_1920x1080_120fps_420_8bit_YUV.yuv"), "uvg")
    assert " ".join(raw.open).startswith("-f rawvideo -pix_fmt yuv420p -video_size 1920x1080 -framerate 120 -i ")
    with pytest.raises(ToolError, match="no clip of uvg"):
        dataset_sources("uvg", tmp_path)


def test_a_reference_is_made_anew_when_its_source_changes(make_clip: MakeClip, tmp_path: Path) -> None:
    tools = Tools(FFMPEG, "")
    make_clip("clip.mp4", moving_frames(6, 96, 128))
    first, path = prepare(tools, file_source(tmp_path / "clip.mp4"), (64, 48), 4, tmp_path / "references")
    assert (first.width, first.height, first.frames, first.fps) == (64, 48, 4, "30")
    made = path.stat().st_mtime_ns
    assert prepare(tools, file_source(tmp_path / "clip.mp4"), (64, 48), 4, tmp_path / "references")[0] == first
    assert path.stat().st_mtime_ns == made
    assert first.pixels_sha256 != prepare(tools, file_source(tmp_path / "clip.mp4"), None, 4, tmp_path)[0].pixels_sha256
    note = path.with_suffix(".json")
    note.write_text(note.read_text().replace("lanczos", "bilinear"))  # made in another way
    assert prepare(tools, file_source(tmp_path / "clip.mp4"), (64, 48), 4, tmp_path / "references")[0] == first
    assert path.stat().st_mtime_ns > made
    make_clip("clip.mp4", moving_frames(5, 96, 128))
    again, _ = prepare(tools, file_source(tmp_path / "clip.mp4"), (64, 48), 8, tmp_path / "references")
    assert again.frames == 5
    assert again.sha256 != first.sha256


def test_ffmpeg_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokcodec").write_text(COPIES)
    (tmp_path / "tokcodec").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TOKCODEC_FFMPEG", "/opt/ffmpeg")
    assert find_tools().ffmpeg == "/opt/ffmpeg"
    monkeypatch.delenv("TOKCODEC_FFMPEG")
    assert find_tools().ffmpeg == pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


def test_the_digest_of_code_is_of_names_and_contents(tmp_path: Path) -> None:
    copy = tmp_path / "tokcodec"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    assert digest_of_files(copy.rglob("*.py"), tmp_path) == code_sha256()
    (copy / "clock.py").rename(copy / "watch.py")
    renamed = digest_of_files(copy.rglob("*.py"), tmp_path)
    (copy / "watch.py").write_text("")
    assert len({code_sha256(), renamed, digest_of_files(copy.rglob("*.py"), tmp_path)}) == 3


def test_results_do_not_make_a_checkout_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.git_commit() is None
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "old.json").write_text("1")
    (tmp_path / "code.py").write_text("1")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = provenance.git_commit()
    (results / "old.json").write_text("2")
    (results / "new.json").write_text("1")
    assert provenance.git_commit() == clean
    assert len(clean or "") == 40
    (tmp_path / "code.py").write_text("2")
    assert provenance.git_commit() == f"{clean}-dirty"


def test_crops_are_at_equal_bytes_where_stills_were_made(tmp_path: Path) -> None:
    stills = tmp_path / "work" / "stills"
    stills.mkdir(parents=True)
    for i, name in enumerate(["a__1", "a__tokcodec__160__1", "a__av1__50__1"]):
        Image.new("RGB", (64, 48), (40 * i, 0, 0)).save(stills / f"{name}.png")
    by = {"code": "c", "weights": "w"}
    made = [
        {"codec": "tokcodec", "rate": 160, "frame": 1, "label": "tokcodec: 5,000 bytes", "made_by": by},
        {"codec": "av1", "rate": 50, "frame": 1, "label": "SVT-AV1: 5,100 bytes"},
    ]
    (stills / "a.json").write_text(json.dumps({"step": 160, "stills": made}))
    page = report.crops({}, tmp_path / "work" / "frames", ["a"])
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["original", *(each["label"] for each in made)]
    assert "tokcodec at step 160, the others with as many bytes" in page
    ours = [{"program": {"code_sha256": code, "weights_sha256": "w"}} for code in "cd"]
    facts = {"stills": made}
    assert report.is_of(facts, ours[:1])
    assert not report.is_of(facts, ours[1:]), "pictures of other code are not shown beside new curves"
