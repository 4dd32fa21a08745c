"""Reporters are plugins: what one raises costs its own file, is named, and the others' are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from made import report, result

from actconform import Reporter, hookimpl
from actconform.plugin.builtin import Builtin
from actconform.plugin.loader import load_plugins
from actconform.report.builtin import Reporters
from actconform.report.files.write import clear, write_all

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = {"junit.xml", "summary.md", "accuracy.json"}


class Broken(Reporter):
    name = "broken"
    filename = "broken.txt"

    def write(self, report, folder):
        (folder / self.filename).write_text("half")
        raise RuntimeError("no \x1b[31mink")


class Leaves(Broken):
    name = "leaves"
    filename = "leaves.txt"

    def write(self, report, folder):
        raise SystemExit(3)


class PanicError(BaseException):
    """As libraries in Rust raise it."""


class Panics(Broken):
    name = "panics"
    filename = "panics.txt"

    def write(self, report, folder):
        raise PanicError("in Rust")


class Idle(Broken):
    name = "idle"
    filename = "idle.txt"

    def write(self, report, folder):
        pass


class Told(Reporter):
    name = "told"
    filename = "told.txt"

    def write(self, report, folder):
        (folder / self.filename).write_text(f"{len(report.results)} {dict(self.trends)} {len(self.causes)}")


def catalog(*reporters: type[Reporter]):
    class Plugin:
        @hookimpl
        def actconform_reporters(self):
            return reporters

    return load_plugins([Builtin, Reporters, Plugin], entry_points=[])


def test_every_reporter_writes_its_file(tmp_path: Path) -> None:
    written = write_all(report(result()), tmp_path, catalog(Told), {"case": "trend"})  # type: ignore[dict-item]
    assert written.faults == []
    assert {path.name for path in written.files} == {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in written.files} >= {*BUILT_IN, "told.txt"}
    assert (tmp_path / "told.txt").read_text() == "1 {'case': 'trend'} 0"


def test_a_reporter_that_fails_is_named_and_costs_only_its_file(tmp_path: Path) -> None:
    (tmp_path / "leaves.txt").write_text("of an earlier run")
    written = write_all(report(result()), tmp_path, catalog(Broken, Leaves, Panics, Idle, Told))
    broken, leaves, panics, idle = written.faults
    assert broken.startswith(f"reporter broken: {tmp_path / 'broken.txt'} is not written: RuntimeError: no ")
    assert "test_write.py:" in broken
    assert "SystemExit: 3" in leaves
    assert "PanicError: in Rust" in panics
    assert "FileNotFoundError: it returned without writing it" in idle
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written.files}
    assert {path.name for path in written.files} >= {*BUILT_IN, "told.txt"}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "told.txt").mkdir()
    clear(tmp_path, catalog(Told))
    (fault,) = write_all(report(result()), tmp_path, catalog(Told)).faults
    assert fault.startswith(f"reporter told: {tmp_path / 'told.txt'} is not written: ")


def test_what_an_earlier_run_left_is_removed(tmp_path: Path) -> None:
    for name in (*BUILT_IN, "told.txt", "mine.txt"):
        (tmp_path / name).write_text("old")
    clear(tmp_path, catalog(Told))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("installed", [True, False])
def test_the_built_in_ones_come_as_a_plugin(installed: bool) -> None:
    loaded = load_plugins() if installed else load_plugins([Reporters], entry_points=[])
    assert {one.filename for one in loaded.reporters.values()} >= BUILT_IN
