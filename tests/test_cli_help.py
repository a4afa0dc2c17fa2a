"""What the command line says of itself: examples in the help, and completion by the shell."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tokcodec.cli import cli


def paths(group: click.Group) -> list[str]:
    """All commands, those of groups behind the name of theirs."""
    inner = {name: paths(c) if isinstance(c, click.Group) else [] for name, c in group.commands.items()}
    return sorted([*inner, *(f"{name} {path}" for name, found in inner.items() for path in found)])


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words begin with, and what is left of them."""
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        command, *words = command.commands[words[0]], *words[1:]
    return command, words


def examples_of(command: click.Command) -> list[str]:
    lines = (command.epilog or "").splitlines()
    assert lines[:2] == ["\b", "Examples:"], "every help ends in examples"
    return [line.removeprefix("  tokcodec ") for line in lines[2:]]


@pytest.mark.parametrize("name", paths(cli))
def test_the_examples_in_the_help_are_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command's own parser: it knows their options, and reads their values."""
    monkeypatch.chdir(tmp_path)
    for folder in ("footage", "videos", "streams"):
        Path(folder).mkdir()
    lines = examples_of(resolved(name.split())[0])
    assert lines
    for line in lines:
        assert f"{line} ".startswith(f"{name} ")
        command, arguments = resolved(shlex.split(line, comments=True))
        arguments = [word for word in arguments if word[0] not in "<>"]  # the shell's
        with command.make_context(name, arguments) as context:
            given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
            known = {option for parameter in command.params for option in parameter.opts}
            assert set(given) <= known
            assert context.params
    with pytest.raises(SystemExit):
        cli.main([*name.split(), "--help"], prog_name="tokcodec")
    shown = capsys.readouterr().out
    assert all(f"  tokcodec {line}\n" in shown for line in lines)  # as they are, not filled to a width


def complete(folder: Path, *words: str) -> list[tuple[str, str]]:
    """Kind and value of what click offers for the last word, as bash asks for it."""
    environment = os.environ | {
        "_TOKCODEC_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(["tokcodec", *words]),
        "COMP_CWORD": str(len(words)),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec"], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [(kind, value) for kind, _, value in (line.partition(",") for line in done.stdout.splitlines())]


def test_completion(tmp_path: Path) -> None:
    for name in ("a.tokc", "B.TOKC", "c.mp4", ".hidden.tokc", "d.npz"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "e.tokc").touch()
    assert ("plain", "encode") in complete(tmp_path, "enc")
    assert ("plain", "--quality") in complete(tmp_path, "encode", "--q")
    assert complete(tmp_path, "lm", "pre") == [("plain", "predict")]
    assert complete(tmp_path, "encode", "a.mp4", "--dtype", "b") == [("plain", "bfloat16")]
    streams = [("plain", "B.TOKC"), ("plain", "a.tokc"), ("plain", "inner/")]
    assert complete(tmp_path, "decode", "") == streams
    assert complete(tmp_path, "concat", "a.tokc", "") == streams
    assert complete(tmp_path, "info", "inner/") == [("plain", "inner/e.tokc")]
    assert complete(tmp_path, "info", ".h") == [("plain", ".hidden.tokc")]
    assert ("plain", "d.npz") in complete(tmp_path, "tokens", "")
    assert complete(tmp_path, "encode", "") == [("file", "")]
    assert complete(tmp_path, "info", "zz") == [("file", "zz")]
    assert complete(tmp_path, "batch", "i") == [("dir", "i")]
    (tmp_path / "with space.tokc").touch()
    assert complete(tmp_path, "decode", "") == [("file", "")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_its_script(shell: str) -> None:
    environment = os.environ | {"_TOKCODEC_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec"], env=environment, capture_output=True, text=True, check=True
    )
    assert "_TOKCODEC_COMPLETE" in done.stdout
    assert f"{shell}_complete" in done.stdout
    assert "tokcodec" in done.stdout.split()
