"""Data flows one way: which module may import which, and which foreign package belongs to which file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tokcodec"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module imports modules of lower levels only.
LEVELS = {
    "clock": 0,
    "colour": 0,
    "compute": 0,
    "dtypes": 0,
    "errors": 0,
    "pipeline": 0,
    "signals": 0,
    "io": 1,
    "rate": 1,
    "arguments": 2,
    "compiled": 2,
    "stream": 3,
    "coding": 4,
    "report": 4,
    "video": 4,
    "restorer": 5,
    "weights": 6,
    "tokenizer": 7,
    "prepare": 8,
    "stream_reader": 8,
    "edit": 9,
    "scoring": 9,
    "tokens": 9,
    "codec": 10,
    "": 11,  # __init__ offers the names of all below it
    "training": 11,
    "batch": 12,
    "language": 12,
    "cli": 13,
    "__main__": 14,
}
# Within a level's reach, these are still closed: the stream knows no network and no video.
TORCHLESS = {
    "__main__",
    "arguments",
    "cli",
    "clock",
    "codec",
    "coding",
    "colour",
    "compute",
    "dtypes",
    "edit",
    "errors",
    "io",
    "language.generate",
    "pipeline",
    "prepare",
    "rate",
    "report",
    "restorer.planar",
    "scoring.compare",
    "scoring.ghosts",
    "scoring.goals",
    "scoring.scores",
    "scoring.stability",
    "scoring.vmaf",
    "signals",
    "stream",
    "stream_reader",
    "tokens.arrays",
    "tokens.bits",
    "tokens.shards",
    "video",
    "weights",
}


def name_of(path: Path) -> str:
    """`tokcodec/rate.py` to rate, `tokcodec/training/data.py` to training, `tokcodec/__init__.py` to nothing."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix("__init__")


def imports(tree: ast.AST, top_only: bool = False) -> Iterator[str]:
    """Dotted names of what a module imports; with `top_only` not what it imports inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_only and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node, top_only)


def targets(path: Path) -> set[str]:
    """The modules of the package that a file imports, as keys of LEVELS."""
    found = set()
    for name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "tokcodec":
            known = len(parts) > 1 and parts[1] in LEVELS
            found.add(parts[1] if known else "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    name = name_of(path)
    assert name in LEVELS, f"give {name} a level"
    upwards = {target for target in targets(path) if LEVELS[target] >= LEVELS[name]}
    inside = {name} if name and (PACKAGE / name).is_dir() else set()  # the files of a package import each other
    assert upwards <= inside


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_foreign_packages_have_their_files(path: Path) -> None:
    names = set(imports(ast.parse(path.read_text())))
    packages = {name.split(".")[0] for name in names}
    if path.parent.name == "stream":
        assert not packages & {"torch", "av", "safetensors"}
        assert targets(path) <= {"stream", "errors", "compiled", "dtypes"}
    assert "av" not in packages or path.parent.name == "video"
    assert "zstandard" not in packages or path.stem == "plain"
    assert "pickle" not in packages


@pytest.mark.parametrize("name", sorted(TORCHLESS))
def test_torch_is_not_imported_where_it_is_not_needed(name: str) -> None:
    """Holds through all that a file imports when it is imported itself."""
    inside = [f"tokcodec.{name}.{path.stem}" for path in PACKAGE.glob(f"{name.replace('.', '/')}/*.py")]
    waiting, seen = [f"tokcodec.{name}", *inside], set[Path]()
    while waiting:
        module = waiting.pop()
        for path in files_of(module) - seen:
            seen.add(path)
            for target in imports(ast.parse(path.read_text()), top_only=True):
                parts = target.split(".")
                assert parts[0] != "torch", f"{path.relative_to(PACKAGE)} imports torch"
                if parts[0] == "tokcodec":
                    waiting += [target, *(".".join(parts[:n]) for n in range(1, len(parts)))]


def files_of(module: str) -> set[Path]:
    """The file of a module by its dotted name, or the first of a package; none of a name inside a module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return {file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()}


def test_importing_the_package_imports_neither_torch_nor_av() -> None:
    code = "import sys, tokcodec; sys.exit(bool({'torch', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0
