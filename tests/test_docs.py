"""The documentation: every command in it runs, every Python example too, and its pages ask the network for nothing.

A block of commands under `<!-- not run: why -->` needs what a test has not; its commands are only parsed, and so is
a line that pipes into other programs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames, with_sound

from tokcodec.cli import cli
from tokcodec.coding import intra_search, lookahead, loop, quantizer
from tokcodec.rate import COARSEST, FINEST, QUALITIES
from tokcodec.stream import entropy
from tokcodec.weights import Weights, find_weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tokcodec/weights/README.md"]
BLOCK = re.compile(r"^(<!-- not run: \w[^\n]* -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPERATORS = {"|", "&&", ">", "<", ";"}
OTHERS = {"docker", "ffmpeg", "ffplay", "git", "wc"}  # programs whose arguments are not ours to check


class Line(NamedTuple):
    """A line of a block: its words, whether its block is to be run."""

    words: list[str]
    is_run: bool


def lines(text: str) -> list[Line]:
    found = []
    assert len(BLOCK.findall(text)) == text.count("```") // 2, "a block that no test sees"
    for note, language, body in BLOCK.findall(text):
        for line in body.replace("\\\n", " ").splitlines() if language == "sh" else ():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split, lexer.commenters = True, "#"
            if words := list(lexer):
                found.append(Line(words, not note))
    return found


def commands(words: list[str]) -> list[list[str]]:
    """The commands of a line, without what is redirected where."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in OPERATORS:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def pythons(text: str) -> list[str]:
    return [body for _, language, body in BLOCK.findall(text) if language == "python"]


def parse(name: str, arguments: list[str]) -> None:
    """Fail if click would: an unknown command or option, a value out of range, an argument too many."""
    command = cli.commands[name]
    if isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.commands[name]
    with command.make_context(name, list(arguments)):
        pass


def check_other(command: list[str]) -> None:
    """A command that is not ours: as much of it as can be known."""
    program, *rest = command
    if program.startswith("bin/"):
        assert os.access(ROOT / program, os.X_OK), program
    elif program == "pip":
        extras = {name for word in rest for group in re.findall(r"\[(.*)\]", word) for name in group.split(",")}
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert extras <= set(known), command
    elif program in ("torchrun", "python"):
        module, *arguments = rest[rest.index("-m") + 1 :]
        if module == "tokcodec":
            parse(arguments[0], arguments[1:])
        else:
            assert ROOT.joinpath(*module.split(".")).with_suffix(".py").exists(), command
    else:
        assert program in OTHERS, command


@pytest.fixture
def workplace(make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples begin with."""
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TOKCODEC_LPIPS_DIR", str(tmp_path))  # nothing is downloaded: LPIPS is left out
    with_sound(make_clip("silent.mp4", moving_frames(20)), tmp_path / "in.mp4")
    for place in (
        "a.mp4",
        "b.mp4",
        "my.mp4",
        "videos/one.mp4",
        "videos/more/two.mp4",
        "footage/one.mp4",
        "DATA/one.mp4",
        "eval/one.mp4",
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "silent.mp4", tmp_path / place)
    (tmp_path / "list.txt").write_text("one.mp4\n")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    run("encode", "silent.mp4", "a.tokc")
    stream = Path("a.tokc").read_bytes()
    Path("b.tokc").write_bytes(stream)
    Path("out.tokc").write_bytes(stream)
    Path("broken.tokc").write_bytes(stream[:-40])
    Path("streams").mkdir()
    Path("streams/a.tokc").write_bytes(stream)
    return tmp_path


def run(*arguments: str) -> None:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, (arguments, result.output, result.exception)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page: Path, workplace: Path) -> None:
    """In order, in one folder: what one makes, the next may read. The first `out.tokc` may be there already."""
    text = page.read_text()
    Path("out.tokc").unlink() if "encode in.mp4 out.tokc" in text else None
    for line in lines(text):
        for command in (parts := commands(line.words)):
            if command[0] != "tokcodec":
                check_other(command)
            elif line.is_run and len(parts) == 1:
                run(*command[1:])
            else:
                parse(command[1], command[2:])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if pythons(page.read_text())], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_examples(page: Path, workplace: Path) -> None:
    for example in pythons(page.read_text()):
        exec(compile(example, page.name, "exec"), {"__name__": "__main__"})


def test_every_command_is_told_of() -> None:
    documented = [
        c[1:] for page in PAGES for line in lines(page.read_text()) for c in commands(line.words) if "tokcodec" in c
    ]
    for name, command in cli.commands.items():
        for path in [[name, inner] for inner in command.commands] if isinstance(command, click.Group) else [[name]]:
            assert any(words[: len(path)] == path for words in documented), path


def test_numbers_of_how_it_works_are_those_of_the_code() -> None:
    text = " ".join((ROOT / "docs/how.md").read_text().split())
    released = Weights.load(find_weights())
    parameters = sum(p.numel() for p in released.restorer().parameters())
    assert f"restorer* ({parameters / 1e6:.1f} million parameters)" in text
    numbers, kept = released.arrays["klt"].shape
    assert f"{numbers} numbers" in text
    assert f"{kept} latents" in text
    assert f"squared error + {loop.MOTION_RATE:g} step² a bit" in text
    most = [f"| {entropy.frame_step(1600, number) / 1600:.2f} |" for number in lookahead.MOST]
    rows = ("first frames", "anchors", "frames halfway", "single frames, from which nothing is predicted")
    assert all(f"| {row} {cell}" in text for row, cell in zip(rows, most, strict=True))
    assert f"squared error + {intra_search.RATE:g} step² a bit" in text
    assert f"the best {('two', 'three', 'four')[intra_search.TRIES - 2]} completely" in text
    assert f"below {1 - quantizer.ROUNDING:g} steps to zero" in text
    assert f"({quantizer.LEVEL_RATE:g} step² a bit)" in text
    assert f"Qualities 1 to {QUALITIES} are steps from {COARSEST:g} to {FINEST:g} levels" in text


def test_the_map_lists_every_module() -> None:
    rows = re.findall(r"^\| (`.*)$", (ROOT / "docs/how.md").read_text(), re.MULTILINE)
    package = ROOT / "tokcodec"
    for file in package.rglob("*.py"):
        if file.name in ("__init__.py", "__main__.py"):
            continue
        room = file.parent.relative_to(package).as_posix()
        name = f"`{file.name}`" if file.parent == package else f"`{file.stem}`"
        assert [row for row in rows if name in row and (file.parent == package or row.startswith(f"`{room}/`"))], file
    assert all(file.exists() for row in rows for file in map(package.joinpath, re.findall(r"`(\w+(?:/|\.py))`", row)))


def test_no_code_stands_outside_of_a_block() -> None:
    """An indented block would not be tested."""
    for page in PAGES:
        assert not re.search(r"^    (tokcodec|pip) ", BLOCK.sub("", page.read_text()), re.MULTILINE), page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built. Warnings are errors: links and anchors that lead nowhere among them."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_pages_ask_the_network_for_nothing(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert {page.name for page in pages} >= {page.with_suffix(".html").name for page in (ROOT / "docs").glob("*.md")}
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source|object)[^>]*(?:src|data)=[\"']?([^\"' >]+)", text)
        loaded += re.findall(r"<link[^>]*href=[\"']?([^\"' >]+)", text)
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\([\"']?|@import [\"']?)(https?:)?//", sheet.read_text())


def test_the_format_is_told_once(site: Path) -> None:
    """The page of the format is FORMAT.md."""
    first, last = (
        line for line in (ROOT / "FORMAT.md").read_text().splitlines() if line.startswith(("# The", "## Example"))
    )
    text = (site / "format.html").read_text()
    assert first.removeprefix("# ") in text
    assert last.removeprefix("## ") in text
