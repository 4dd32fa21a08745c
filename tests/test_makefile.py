"""`make install` takes a Python that works and says which; where there is none, it says so and ends with an error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

# The real one answers what it is asked with -c; what it would install or make is written down.
PYTHON = """#!/bin/sh
case "$1" in
-c) exec {real} -c "import sys; sys.version_info = {version}; sys.version = '{name}'; $2" ;;
-m) echo "{name} $*" >> {log}
    if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi ;;
esac
"""
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with an own PATH: `with_python` puts a Python of a version there, or a shim that does not run."""
    folder, programs = tmp_path / "checkout", tmp_path / "bin"
    programs.mkdir()
    for path in [ROOT / "pyproject.toml", ROOT / "constraints.txt", *ROOT.glob("plugins/*/pyproject.toml")]:
        there = folder / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.touch()
    shutil.copy(ROOT / "Makefile", folder)
    for tool in ("touch", "mkdir", "cp"):
        (programs / tool).symlink_to(str(shutil.which(tool)))
    return Checkout(folder, programs, tmp_path / "log")


class Checkout:
    def __init__(self, folder: Path, programs: Path, log: Path) -> None:
        self.folder, self.programs, self.log = folder, programs, log

    def with_python(self, name: str, version: tuple[int, int, int] | None) -> Path:
        path = self.programs / name
        words = ".".join(map(str, version)) if version else ""
        path.write_text(
            PYTHON.format(real=sys.executable, version=version, name=words, log=self.log) if version else SHIM
        )
        path.chmod(0o755)
        return path

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.programs), "HOME": str(self.folder)}
        command = [str(MAKE), "-C", str(self.folder), "install", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def made_with(self) -> str:
        (made,) = re.findall(r"^(\S+) -m venv \.venv$", self.log.read_text(encoding="utf-8"), re.MULTILINE)
        return str(made)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": (3, 11, 9), "python3.12": (3, 12, 1)}, "3.11.9"),
        ({"python3.11": None, "python3.12": (3, 12, 1), "python3.13": (3, 13, 0)}, "3.12.1"),
        ({"python3.11": None, "python3.12": None, "python3.13": (3, 13, 0)}, "3.13.0"),
        ({"python3": (3, 12, 4)}, "3.12.4"),
    ],
    ids=["the oldest", "a shim that does not run", "two of them", "python3 alone"],
)
def test_the_first_that_works_is_taken_and_named(checkout, there, taken):
    for name, version in there.items():
        checkout.with_python(name, version)
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    assert f".venv with Python {taken} of " in done.stdout
    assert checkout.made_with() == taken
    assert (checkout.folder / ".venv" / "installed").exists()


@pytest.mark.parametrize(
    "there",
    [{}, {"python3.11": None}, {"python3": (3, 10, 13)}, {"python3": (3, 14, 0)}],
    ids=["none", "a shim", "too old", "too new"],
)
def test_without_one_it_says_what_is_wanted_and_ends_with_an_error(checkout, there):
    for name, version in there.items():
        checkout.with_python(name, version)
    done = checkout.install()
    assert done.returncode != 0
    assert "No Python 3.11, 3.12 or 3.13 that runs" in done.stderr
    assert "make install PYTHON=/path/to/python3.12" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_a_named_one_is_taken_alone(checkout):
    checkout.with_python("python3.11", (3, 11, 9))
    named = checkout.with_python("mine", (3, 13, 2))
    assert ".venv with Python 3.13.2 of " in checkout.install(f"PYTHON={named}").stdout
    assert checkout.made_with() == "3.13.2"


def test_a_named_one_that_does_not_work_is_an_error_though_others_would(checkout):
    checkout.with_python("python3.11", (3, 11, 9))
    done = checkout.install("PYTHON=python3.9")
    assert done.returncode != 0
    assert "tried: python3.9." in done.stderr


def test_what_the_environment_was_made_with_is_kept(checkout):
    named = checkout.with_python("python3.12", (3, 12, 1))
    assert checkout.install(f"PYTHON={named}").returncode == 0
    checkout.with_python("python3.11", (3, 11, 9))
    (checkout.folder / ".venv" / "installed").unlink()
    assert ".venv with Python 3.12.1 of " in checkout.install().stdout
    assert checkout.made_with() == "3.12.1"
