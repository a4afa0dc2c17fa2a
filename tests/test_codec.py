"""Video to stream to video: what must survive does, and every way to fail leaves nothing behind."""

import dataclasses
import io
import itertools
import resource
import threading
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip, frames_of, moving_frames, times_of, with_sound

import tokcodec
from tokcodec import ModelError, Rate, TokcodecError, VideoError, edit
from tokcodec.bitstream import BitstreamError, Reader, TruncatedError
from tokcodec.network import Network, find_weights, load_network
from tokcodec.pipeline import in_background
from tokcodec.video import VideoInfo, VideoWriter

FAST = {"device": "cpu", "dtype": "float32"}
FULL = {"rate": Rate(), **FAST}


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


def lossless(path: Path, frames: list[np.ndarray], pts: list[int] | None = None, **info: object) -> Path:
    """Write frames exactly, to an .mkv."""
    height, width = frames[0].shape[:2]
    facts = VideoInfo(width, height, Fraction(1, 1000), Fraction(30), **info)  # type: ignore[arg-type]
    with VideoWriter(path, facts, lossless=True) as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, pts[i] if pts else 40 * i, 40)
    return path


@pytest.mark.parametrize("count", [1, 2, 5, 33, 34, 70])
def test_stream_holds_exactly_what_the_network_says(tmp_path: Path, weights: Path, count: int) -> None:
    frames = moving_frames(count, 33, 50)
    stream, back = tmp_path / "a.tokc", tmp_path / "b.mkv"
    report = tokcodec.encode_video(lossless(tmp_path / "a.mkv", frames), stream, **FULL)
    assert (report.frames, report.chunks, report.bytes) == (count, -(-count // 33), stream.stat().st_size)
    assert report.bpp == pytest.approx(8 * stream.stat().st_size / (50 * 33 * count), abs=1e-6)

    network = load_network(weights, "cpu", "float32")
    chunks = [np.stack(frames[i : i + 33]) for i in range(0, count, 33)]
    expected = [network.encode(chunk[None])[0] for chunk in chunks]
    with tokcodec.open_stream(stream, **FAST) as opened:
        assert all(np.array_equal(a, b) for a, b in zip(opened.bits(), expected, strict=True))
    assert tokcodec.decode_video(stream, back, lossless=True, **FAST).frames == count
    pictures = [network.decode([b], len(c), 33, 50)[0] for b, c in zip(expected, chunks, strict=True)]
    assert np.array_equal(np.concatenate(pictures), np.stack(frames_of(back)))


@pytest.mark.parametrize("group", [1, 2])
def test_a_chunk_ends_with_its_scene(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(Network, "group", lambda *_: group)
    one, two = moving_frames(80, 33, 50), [255 - frame for frame in moving_frames(80, 33, 50)]
    frames = [*one[:40], *two[40:55], *one[55:]]
    tokcodec.encode_video(lossless(tmp_path / "a.mkv", frames), tmp_path / "a.tokc", **FULL)
    network, edges = load_network(weights, "cpu", "float32"), [0, 33, 40, 55, 66, 80]
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        assert [entry.first_pts for entry in stream.chunks] == [40 * begin for begin in edges[:-1]]
        for bits, (begin, end) in zip(stream.bits(), itertools.pairwise(edges), strict=True):
            assert np.array_equal(bits, network.encode(np.stack(frames[begin:end])[None])[0])
        assert len(list(stream.frames())) == 80


def test_chunks_side_by_side_equal_chunks_alone(weights: Path) -> None:
    """What a GPU does with several chunks at once."""
    network = load_network(weights, "cpu", "float32")
    clips = np.stack([np.stack(moving_frames(20, 32, 32)[i : i + 9]) for i in (0, 5, 11)])
    together = network.encode(clips)
    assert all(np.array_equal(network.encode(clip[None])[0], bits) for clip, bits in zip(clips, together, strict=True))
    pictures = network.decode([together[0], together[1][:20], together[2]], 9, 32, 32)
    for bits, clip in zip((together[0], together[1][:20], together[2]), pictures, strict=True):
        alone = network.decode([bits], 9, 32, 32)[0]
        assert np.abs(alone.astype(int) - clip).max() <= 1


def test_steps_of_the_network_do_not_show(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(weights, "cpu", "float32")
    clip = np.stack(moving_frames(33, 48, 64))[None]
    whole = network.encode(clip)
    monkeypatch.setattr("tokcodec.network.STEP_PX", {"cpu": 4 * 48 * 64})  # one latent frame at a time
    assert np.array_equal(network.encode(clip), whole)
    stepwise = network.decode([whole[0]], 33, 48, 64)
    monkeypatch.setattr("tokcodec.network.STEP_PX", {"cpu": 1 << 30})
    assert np.abs(stepwise.astype(int) - network.decode([whole[0]], 33, 48, 64)).max() <= 1


def test_variable_frame_rate_sound_rotation_and_aspect_survive(make_clip: MakeClip, tmp_path: Path) -> None:
    pts = [0, 1, 3, 4, 9, 10, 11, 20, 21, 25, *range(30, 65)]
    silent = make_clip("v.mp4", moving_frames(45), pts=pts)
    source = with_sound(silent, tmp_path / "s.mp4")
    stream, back = tmp_path / "s.tokc", tmp_path / "back.mp4"
    tokcodec.encode_video(source, stream, **FULL)
    tokcodec.decode_video(stream, back, **FAST)
    assert times_of(back) == times_of(source) == [Fraction(t, 30) for t in pts]
    assert times_of(back, "audio") == times_of(source, "audio")

    turned = VideoInfo(50, 34, Fraction(1, 25), Fraction(25), Fraction(4, 3), 90)
    with VideoWriter(tmp_path / "t.mp4", turned) as writer:
        for i, frame in enumerate(moving_frames(5, 34, 50)):
            writer.write(frame, i)
    tokcodec.encode_video(tmp_path / "t.mp4", tmp_path / "t.tokc", **FULL)
    facts = edit.describe(tmp_path / "t.tokc")
    assert (facts["rotation"], facts["sample_aspect"], facts["frame_rate"]) == (90, "4/3", 25)


def test_the_rate_is_that_of_the_video_without_the_sound(make_clip: MakeClip, tmp_path: Path) -> None:
    """The same frames, with and without sound beside them: one rate, whoever reports it."""
    silent = make_clip("v.mp4", moving_frames(70))
    sounded = with_sound(silent, tmp_path / "s.mp4")
    a, b = tmp_path / "a.tokc", tmp_path / "b.tokc"
    plain = tokcodec.encode_video(silent, a, **FULL)
    assert (plain.bytes, plain.video_bytes, plain.other_bytes) == (a.stat().st_size, a.stat().st_size, 0)
    made = tokcodec.encode_video(sounded, b, **FULL)
    with b.open("rb") as file:
        reader = Reader(file)
        name, streams = reader.streams() or ("", io.BytesIO())
        records_bytes = 12 + 8 + len(name) + 12 + len(streams.read())  # STRM and one PART
    assert made.bytes == b.stat().st_size
    assert made.other_bytes == records_bytes > 5000
    assert made.video_bytes == made.bytes - made.other_bytes
    assert abs(made.video_bytes - plain.bytes) <= 4  # of the index' varints
    assert made.bpp == round(8 * made.video_bytes / (64 * 48 * 70), 6)
    assert made.kbps == round(8 * made.video_bytes / (70 / 30) / 1000, 3)
    read = [
        edit.verify(b),
        *(tokcodec.decode_video(b, tmp_path / f"{x}.mp4", salvage=x, **FAST) for x in (False, True)),
    ]
    written = [edit.trim(b, tmp_path / "t.tokc"), edit.thin(b, tmp_path / "k.tokc", Rate(token_bits=64))]
    for report in map(dataclasses.asdict, [*read, *written]):
        assert (report["video_bytes"], report["bpp"], report["kbps"]) == (made.video_bytes, made.bpp, made.kbps)
    facts = edit.describe(b)
    assert (facts["video_bytes"], facts["other_bytes"], facts["bpp"]) == (made.video_bytes, records_bytes, made.bpp)
    target = tokcodec.thin(b, tmp_path / "r.tokc", Rate(bits_per_s=500 * made.kbps))
    assert 0.4 * made.kbps < target.kbps <= 0.5 * made.kbps
    assert target.other_bytes == made.other_bytes


def test_span_of_the_source_and_of_the_stream_agree(make_clip: MakeClip, tmp_path: Path) -> None:
    """--start and --duration pick the same frames in encode and decode, and both begin at 0."""
    source = with_sound(make_clip("v.mp4", moving_frames(80)), tmp_path / "s.mp4")
    cut, whole = tmp_path / "cut.tokc", tmp_path / "whole.tokc"
    tokcodec.encode_video(source, cut, start_s=1.0, duration_s=0.5, **FULL)
    tokcodec.encode_video(source, whole, **FULL)
    assert edit.describe(cut)["frames"] == 15
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    tokcodec.decode_video(cut, a, **FAST)
    assert tokcodec.decode_video(whole, b, start_s=1.0, duration_s=0.5, **FAST).frames == 15
    assert times_of(a) == times_of(b) == [Fraction(i, 30) for i in range(15)]
    sound = times_of(b, "audio")
    assert abs(sound[0]) < 0.03
    assert 0.4 < sound[-1] < 0.55
    with pytest.raises(TokcodecError, match="no frames from 9"):
        tokcodec.decode_video(whole, tmp_path / "c.mp4", start_s=9, **FAST)
    assert not (tmp_path / "c.mp4").exists()


def test_open_stream_gives_the_frames_of_a_span(tmp_path: Path) -> None:
    source = lossless(tmp_path / "a.mkv", moving_frames(70))
    tokcodec.encode_video(source, tmp_path / "a.tokc", **FULL)
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        assert [entry.frames for entry in stream.chunks] == [33, 33, 4]
        everything = list(stream.frames())
        part = list(stream.frames(1.0, 1.5))
        assert [pts for _, pts, _ in part] == [pts for _, pts, _ in everything if 1000 <= pts < 1500]
        assert all(any(np.array_equal(f, g) for g, _, _ in everything) for f, _, _ in part)
        assert len(list(stream.bits(1.0, 1.5))) == 2  # frame 32 is at 1.28 s


@pytest.mark.parametrize("k", [1, 17, 64])
def test_fewer_bits_at_once_equal_thinning_later(tmp_path: Path, k: int) -> None:
    source = lossless(tmp_path / "a.mkv", moving_frames(40))
    at_once, full, later = (tmp_path / name for name in ("k.tokc", "full.tokc", "later.tokc"))
    tokcodec.encode_video(source, at_once, rate=Rate(token_bits=k), **FAST)
    tokcodec.encode_video(source, full, **FULL)
    tokcodec.thin(full, later, Rate(token_bits=k))
    assert at_once.read_bytes() == later.read_bytes()
    assert edit.describe(later)["token_bits"] == (k, k)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_targets_are_met_from_below(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(330)]
    source = lossless(tmp_path / "a.mkv", noise)
    full, sized, timed = (tmp_path / name for name in ("full.tokc", "sized.tokc", "timed.tokc"))
    whole = tokcodec.encode_video(source, full, **FULL)
    target = int(share * whole.bytes)
    report = tokcodec.encode_video(source, sized, rate=Rate(size_bytes=target), **FAST)
    assert 0.97 * target <= report.bytes == sized.stat().st_size <= target
    wanted_kbps = share * whole.kbps
    report = tokcodec.thin(full, timed, Rate(bits_per_s=1000 * wanted_kbps))
    assert 0.97 * wanted_kbps <= report.kbps <= wanted_kbps
    tokcodec.verify(timed)


def test_targets_out_of_reach(tmp_path: Path) -> None:
    source = lossless(tmp_path / "a.mkv", moving_frames(34))
    with pytest.raises(TokcodecError, match="cannot be met"):
        tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(size_bytes=100), **FAST)
    assert not (tmp_path / "a.tokc").exists()
    whole = tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(size_bytes=10**9), **FAST)
    assert whole.token_bits == (64, 64)
    with pytest.raises(ValueError, match="one positive number"):
        Rate(token_bits=3, size_bytes=4)
    with pytest.raises(ValueError, match="1 to 64"):
        tokcodec.encode_video(source, tmp_path / "b.tokc", rate=Rate(token_bits=65), **FAST)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.y4m", "png/%04d.png"])
def test_every_output_has_every_frame(tmp_path: Path, name: str) -> None:
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(36)), tmp_path / "a.tokc", **FULL)
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, **FAST)
    assert len(frames_of(tmp_path / name)) == 36
    with pytest.raises(TokcodecError, match="already"):
        tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, **FAST)
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, overwrite=True, **FAST)


def test_a_shorter_set_of_images_replaces_a_longer_one(tmp_path: Path) -> None:
    """Old pictures behind the new ones would be taken for theirs; what else is there stays."""
    for count in (12, 3):
        source = lossless(tmp_path / f"{count}.mkv", moving_frames(count))
        tokcodec.encode_video(source, tmp_path / f"{count}.tokc", **FULL)
    folder = tmp_path / "100% d"
    tokcodec.decode_video(tmp_path / "12.tokc", folder / "f%02d.png", **FAST)
    others = ["f001.png", "f1.png", "g04.png", "f04.jpg", "f04.png.txt", "f-4.png"]
    for name in others:
        (folder / name).touch()
    tokcodec.decode_video(tmp_path / "3.tokc", folder / "f%02d.png", overwrite=True, **FAST)
    assert sorted(file.name for file in folder.iterdir()) == sorted(["f01.png", "f02.png", "f03.png", *others])
    assert len(frames_of(folder / "f%02d.png")) == 3


def test_other_weights_are_named(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(2)), tmp_path / "a.tokc", **FULL)
    other = tmp_path / "other.safetensors"
    network = load_network(weights, "cpu", "float32")
    network.model.save(other, {"note": "other"})
    with pytest.raises(ModelError, match=f"{network.sha256.hex()[:16]}.*other.safetensors.*--weights"):
        tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / "b.mkv", weights=other, **FAST)
    monkeypatch.delenv("TOKCODEC_WEIGHTS")
    monkeypatch.setattr("tokcodec.network.RELEASED", tmp_path / "nothing")
    with pytest.raises(ModelError, match="no weights are installed"):
        find_weights()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tokc", "other.safetensors", "s.mkv"]


def test_salvage_plays_what_is_intact(tmp_path: Path) -> None:
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(99)), stream, **FULL)
    with tokcodec.open_stream(stream) as opened:
        middle = opened.chunks[1]
    data = bytearray(stream.read_bytes())
    data[middle.offset + middle.bytes // 2] ^= 1
    damaged, cut = tmp_path / "damaged.tokc", tmp_path / "cut.tokc"
    damaged.write_bytes(data)
    cut.write_bytes(data[: middle.offset + 9])
    for path, error, frames in ((damaged, BitstreamError, 66), (cut, TruncatedError, 33)):
        with pytest.raises(error, match=path.name):
            tokcodec.decode_video(path, tmp_path / "b.mkv", **FAST)
        assert not (tmp_path / "b.mkv").exists()
        report = tokcodec.decode_video(path, tmp_path / f"{path.stem}.mkv", salvage=True, **FAST)
        assert report.frames == len(frames_of(tmp_path / f"{path.stem}.mkv")) == frames
        assert report.damaged == 1


def test_bad_sources_leave_nothing(tmp_path: Path, make_clip: MakeClip) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    good = make_clip("good.mp4", moving_frames(3))
    (tmp_path / "headless.mp4").write_bytes(good.read_bytes()[:200])
    before = set(tmp_path.iterdir())
    for source in ("text.mp4", "empty.mp4", "headless.mp4", "absent.mp4"):
        with pytest.raises(VideoError, match=source) as caught:
            tokcodec.encode_video(tmp_path / source, tmp_path / "out.tokc", **FULL)
        assert "\n" not in str(caught.value)
    with pytest.raises(TokcodecError, match="same file"):
        tokcodec.encode_video(good, good, overwrite=True, **FULL)
    with pytest.raises(TokcodecError, match="no folder"):
        tokcodec.encode_video(good, tmp_path / "no" / "out.tokc", **FULL)
    with pytest.raises(TokcodecError, match="is a folder"):
        tokcodec.encode_video(good, tmp_path, overwrite=True, **FULL)
    with pytest.raises(BitstreamError, match=r"good\.mp4.*not a \.tokc"):
        tokcodec.decode_video(good, tmp_path / "out.mkv", **FAST)
    assert set(tmp_path.iterdir()) == before


def test_frames_too_large_for_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clip: MakeClip) -> None:
    clip = make_clip("a.mp4", moving_frames(2))
    real = tokcodec.codec._header
    monkeypatch.setattr("tokcodec.codec._header", lambda info, net: real(dataclasses.replace(info, width=20000), net))
    with pytest.raises(TokcodecError, match="20000"):
        tokcodec.encode_video(clip, tmp_path / "a.tokc", **FULL)


def test_full_disk_is_one_line_and_no_file(tmp_path: Path, make_clip: MakeClip) -> None:
    """A disk that fills up in mid-stream, as a limit to the size of a file does."""
    clip = make_clip("a.mp4", moving_frames(40))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(TokcodecError, match=r"a\.tokc: cannot write: File too large"):
            tokcodec.encode_video(clip, tmp_path / "a.tokc", **FULL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_background_iteration_keeps_order_errors_and_cleanup() -> None:
    closed = threading.Event()

    def numbers(stop_at: int | None = None) -> Generator[int, None, None]:
        try:
            for i in itertools.count():
                if i == stop_at:
                    raise KeyError(i)
                yield i
        finally:
            closed.set()

    assert list(itertools.islice(in_background(numbers()), 100)) == list(range(100))
    items = in_background(numbers())
    next(items)
    closed.clear()
    items.close()
    assert closed.is_set()
    failing = in_background(numbers(stop_at=3), depth=2)
    assert [next(failing) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(failing)
    assert not [t for t in threading.enumerate() if t.name.startswith("tokcodec") and t.is_alive()]
