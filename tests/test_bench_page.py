"""The report in a headless browser: nothing is asked of the network, pictures show, and axes can be read."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.clips import Clip
from benchmarks.codecs import MODES
from benchmarks.points import POINTS, read_points
from benchmarks.report import COLOURS, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLIPS = ("02_cups", "davis-blackswan", "max-heromode")
RESULTS = Path(__file__).parents[1] / "benchmarks/results/eval-360p"
MEASURE = """<script>addEventListener("load", () => {
const texts = [...document.querySelectorAll("svg text")].map(each => {
    const box = each.getBoundingClientRect(), svg = each.closest("svg").getBoundingClientRect();
    const inside = box.left >= svg.left - 1 && box.right <= svg.right + 1 && box.bottom <= svg.bottom + 1;
    return {text: each.textContent, height: box.height, inside, x: box.left, right: box.right, y: box.top,
            svg: [...document.querySelectorAll("svg")].indexOf(each.closest("svg"))};
});
const canvas = document.getElementById("zoom"), told = document.getElementById("zoom-told");
const enlarged = () => {
    const drawn = new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size;
    return {drawn, frames: shownFrames(), told: told.textContent};
};
const shownFrames = () => {  // what frame stands at either end
    return [75, canvas.width - 15].map(px => {
        const box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent("pointermove",
            {clientX: box.left + px * box.width / canvas.width, clientY: box.top + 9}));
        return Number(/frame (\\d+)/.exec(told.textContent)[1]);
    });
};
const zoom = [enlarged()];
for (let i = 0; i < 5; i++) {
    const box = canvas.getBoundingClientRect();
    const at = {clientX: box.left + box.width / 2, clientY: box.top + 9, deltaY: -1};
    canvas.dispatchEvent(new WheelEvent("wheel", at));
}
zoom.push(enlarged());
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
zoom.push(enlarged());
canvas.dispatchEvent(new MouseEvent("dblclick"));
zoom.push(enlarged());
document.querySelector("[name=metric]").value = "psnr_rgb_db";
document.querySelector("[name=metric]").dispatchEvent(new Event("change"));
zoom.push(enlarged());
const images = [...document.images].map(each => each.naturalWidth);
const asked = performance.getEntriesByType("resource").map(each => each.name).filter(name => !name.startsWith("data:"));
document.body.innerHTML = "";
document.body.textContent = "FOUND" + JSON.stringify({texts, images, asked, zoom}) + "DNUOF";
});</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of some of the results in the repository, with grey pictures of one clip."""
    folder = tmp_path_factory.mktemp("results")
    points = {title: point for title, point in read_points(RESULTS).items() if point["clip"]["name"] in CLIPS}
    (folder / POINTS).write_text(json.dumps(points))
    for title, point in points.items():
        if point["clip"]["name"] == "02_cups":
            for frame in (point["middle_frame"], point["worst_frame"]):
                for name in (Clip(**point["clip"]).key, title):
                    Image.new("RGB", (640, 360), "grey").save(folder / f"{name}__{frame}.png")
    write_report(folder, folder)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def seen(report: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:  # type: ignore[type-arg]
    if BROWSER is None:
        pytest.skip("no chromium")
    folder = tmp_path_factory.mktemp("page")
    page = folder / "report.html"
    page.write_text(report.replace("</html>", f"{MEASURE}</html>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,2000"]
    options += [f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=600)
    found = re.search("FOUND({.*})DNUOF", done.stdout, re.DOTALL)
    assert found, done.stderr[-500:]
    return json.loads(unescape(found[1]))


def test_nothing_is_asked_of_the_network(report: str, seen: dict[str, list]) -> None:  # type: ignore[type-arg]
    assert seen["asked"] == []
    assert not re.findall(r"(?:src|href)=.(?!data:|#)|url\((?!#)|@import", report)


def test_pictures_show(report: str, seen: dict[str, list]) -> None:  # type: ignore[type-arg]
    assert all(width > 0 for width in seen["images"])
    assert len(seen["images"]) == report.count("<img") > 0


def test_axes_can_be_read(seen: dict[str, list]) -> None:  # type: ignore[type-arg]
    assert len(seen["texts"]) > 100
    for each in seen["texts"]:
        assert each["height"] >= 10, f"{each['text']} is too small"
        assert each["inside"], f"{each['text']} is cut off"
    lines: dict[tuple[int, int], list] = {}  # type: ignore[type-arg]
    for each in seen["texts"]:
        lines.setdefault((each["svg"], round(each["y"])), []).append(each)
    for line in lines.values():
        line.sort(key=lambda each: each["x"])
        for left, right in itertools.pairwise(line):
            assert left["right"] <= right["x"] + 1, f"{left['text']} runs into {right['text']}"


def test_a_clip_is_enlarged(seen: dict[str, list]) -> None:  # type: ignore[type-arg]
    """By the wheel around the pointer; moved by a key; a double click shows all again."""
    whole, enlarged, moved, again, other = seen["zoom"]
    assert whole["frames"] == [0, 61]  # the last of every third
    assert 15 < enlarged["frames"][0] < enlarged["frames"][1] < 48
    assert moved["frames"][0] > enlarged["frames"][0]
    assert again == whole
    for each in seen["zoom"]:
        assert each["drawn"] > 20  # colours
        assert "tokcodec 1" in each["told"]
    assert other["told"] != whole["told"]


def test_every_codec_has_a_colour_of_its_own() -> None:
    assert len({*COLOURS.values()}) == len(COLOURS) == len(MODES)
