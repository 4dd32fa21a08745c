"""The command line in this process, and the plugin of tests/stand_in.py installed for it and for its workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from actconform.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with these plugins: name=module:attribute."""

    def installed(**plugins: str) -> None:
        info = tmp_path / "site" / "actconform_stand_in-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-stand-in\nVersion: 1.0\n")
        points = [f"{name} = {value}" for name, value in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join(["[actconform]", *points]))
        for folder in (info.parent, TESTS):
            monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(info.parent), str(TESTS)]), prepend=os.pathsep)

    return installed


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `actconform ARGUMENTS` in an empty folder; return its exit code and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["actconform", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return Said(int(exited.value.code or 0), *capsys.readouterr())

    return run
