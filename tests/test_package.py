"""What is installed: the wheel is built from the sdist, the sdist from the sources, and the wheel is used."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import MakeClip, frames_of, moving_frames

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tokcodec"
RELATIVE_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s]+)\)")
NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "site", "*-out")


def build(kind: str, source: Path, out: Path) -> Path:
    """An sdist or wheel of a folder, made by the hook that pip and build call."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCES)
    with tarfile.open(build("sdist", folder / "source", folder)) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("tokcodec-*/"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    return build("wheel", sdist, sdist.parent)


def own_files() -> set[str]:
    """All that belongs to the package, as paths in the checkout."""
    return {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert names == own_files()
    assert {"tokcodec/py.typed", "tokcodec/weights/base.safetensors", "tokcodec/weights/README.md"} <= names


def test_sdist_has_what_builds_documents_and_tests_it(sdist: Path) -> None:
    names = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    wanted = own_files() | {"CHANGELOG.md", "FORMAT.md", "LICENSE", "README.md", "constraints.txt", "pyproject.toml"}
    for folder in ("bin", "docs", "tests"):
        paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        wanted |= {str(path.relative_to(ROOT)) for path in paths}
    assert wanted <= names
    assert not [name for name in names if re.search(r"\.(pyc|nbi|nbc)$", name)]


def test_no_link_of_the_wheel_leads_out_of_it(wheel: Path) -> None:
    """The description that a package index shows stands alone; the model card has the package around it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        description = email.message_from_bytes(archive.read(metadata)).get_payload()
        card = archive.read("tokcodec/weights/README.md").decode()
    assert isinstance(description, str)
    assert "tokcodec encode" in description
    assert not RELATIVE_LINK.findall(description)
    for link in RELATIVE_LINK.findall(card):
        assert os.path.normpath(f"tokcodec/weights/{link}") in names


def test_links_of_the_readme_resolve_in_the_sdist(sdist: Path) -> None:
    links = RELATIVE_LINK.findall((sdist / "README.md").read_text())
    assert links
    assert not [link for link in links if not (sdist / link.partition("#")[0]).exists()]


def test_the_image_is_made_of_what_the_sdist_has(sdist: Path) -> None:
    """And of what .dockerignore lets through: its first line keeps everything out."""
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert sorted(names) == sorted(allowed)
    assert all((sdist / name).exists() for name in names)


def test_wheel_is_installed_and_codes_a_clip(wheel: Path, make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-compile", "--target", site, wheel], check=True, capture_output=True)
    for path in PACKAGE.rglob("*.nb[ic]"):  # compiled code, or half a minute would go by; `weights` has made it
        place = site / path.relative_to(ROOT)
        place.parent.mkdir(exist_ok=True)
        shutil.copy2(path, place)
    make_clip("in.mp4", moving_frames(6))
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOKCODEC_")} | {"PYTHONPATH": str(site)}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(site / "bin/tokcodec", "--version").strip().endswith(version)
    assert run(sys.executable, "-c", "import tokcodec; print(tokcodec.__file__)").startswith(str(site))
    assert "encode" in run(sys.executable, "-m", "tokcodec", "--help")
    run(sys.executable, "-m", "tokcodec", "encode", "in.mp4", "out.tokc")
    run(sys.executable, "-m", "tokcodec", "decode", "out.tokc", "out.mp4")
    assert len(frames_of(tmp_path / "out.mp4")) == 6


def test_an_editable_install_is_found_beside_a_checkout(sdist: Path, tmp_path: Path) -> None:
    """In a folder that holds the checkout under the name of the package, as after `git clone`."""
    shutil.copytree(sdist, tmp_path / "tokcodec")
    (tmp_path / "site").mkdir()
    with zipfile.ZipFile(build("editable", tmp_path / "tokcodec", tmp_path)) as archive:
        for name in archive.namelist():
            if "/" not in name:
                archive.extract(name, tmp_path / "site")
    code = (
        f"import site, sys; sys.path = [place for place in sys.path if place != {str(ROOT)!r}]; "  # its own
        f"site.addsitedir({str(tmp_path / 'site')!r}); import tokcodec; print(tokcodec.__file__)"
    )
    done = subprocess.run([sys.executable, "-E", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "tokcodec/tokcodec/__init__.py"), done.stderr


def test_the_script_runs_beside_a_checkout(tmp_path: Path) -> None:
    """Also where the package is found last of all: by a hook, as older editable installs have it."""
    checkout, hook = tmp_path / "tokcodec", tmp_path / "hook"
    shutil.copytree(ROOT / "bin", checkout / "bin")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    (checkout / ".venv/bin").mkdir(parents=True)
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(f"""
import importlib.util, sys
from importlib.machinery import PathFinder

class Hook:
    def find_spec(name, path=None, target=None):
        if name == "tokcodec":
            return importlib.util.spec_from_file_location(name, {str(PACKAGE / "__init__.py")!r})

sys.path = [path for path in sys.path if path != {str(ROOT)!r}]
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Hook)
""")
    python = checkout / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={hook} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    stamp = subprocess.run("cat pyproject.toml constraints.txt | cksum", shell=True, cwd=checkout, capture_output=True)
    (checkout / ".venv/installed-plain").write_bytes(stamp.stdout)
    done = subprocess.run([checkout / "bin/tokcodec", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("tokcodec, version"), done.stderr
