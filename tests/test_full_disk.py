"""A disk that is full at any byte costs no result that was written, is named, and makes exit code 1; space alone mends it."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actconform.plugin.interfaces import Reporter
from actconform.plugin.loader import Catalog, load_plugins
from actconform.report.files.write import write_all
from actconform.run.recorder import CLAIM, REPORT, RESULTS, Recorder, read_results, report
from actconform.types import Case, Result, Verdict
from actconform.types.report import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.types.report import Report

ACTCONFORM = str(Path(sys.executable).with_name("actconform"))
CASES = [Case(name, "value", "f32", "torch") for name in ("relu", "tanh", "elu")]
FACTS = {"torch": {"torch": "2.13.0"}}


class Disk:
    """A folder on a disk of `size` bytes: of what is written to it beyond, only the beginning finds room."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.size = folder, 1 << 30
        self._open = io.open
        for module in (io, builtins):
            monkeypatch.setattr(module, "open", self.open)

    @property
    def room(self) -> int:
        return self.size - sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        inside = isinstance(file, (str, os.PathLike)) and Path(file).parent == self.folder
        if not inside or not set(mode) & set("wax"):
            return self._open(file, mode, buffering, *args, **kwargs)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        raw.disk = self
        if buffering == 0:
            return raw
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **kwargs)


class Raw(io.FileIO):
    disk: Disk

    def write(self, data: Any) -> int:
        room = self.disk.room
        if room <= 0 and len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[: max(room, 0)])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patched:
        yield Disk(tmp_path / "out", patched)


def result(case: Case) -> Result:
    about = {name: getattr(case, name) for name in ("subject", "aspect", "dtype", "route")}
    return Result(case=case.id, verdict=Verdict.PASS, reason="r" * 200, **about)


class Page(Reporter):
    name, filename = "page", "page.txt"

    def write(self, report: Report, folder: Path) -> None:
        (folder / self.filename).write_text("x" * 300 + str(report.conforms), encoding="utf-8")


CATALOG: Callable[[], Catalog] = lambda: load_plugins(entry_points=[])  # noqa: E731


def record(folder: Path, *, resume: bool = False) -> list[str]:
    """Record a run of all cases, or what is left of it; return what is said to be missing."""
    wanted = {case.id for case in CASES} if resume else None
    with Recorder(folder, about="so", resume=wanted) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        results = [recorder.get(case.id) or result(case) for case in CASES]
        for one in results:
            recorder.add(one)
        made = report(results, Facts(), [], {})
        recorder.finish(made)
        catalog = CATALOG()
        catalog.reporters.clear()
        catalog.reporters["page"] = Page
        faults = write_all(made, folder, catalog).faults
        return [*recorder.unwritten, *faults]


def whole_lines(folder: Path) -> list[bytes]:
    return [line for line in (folder / RESULTS).read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def test_every_byte_of_room_from_none_to_enough(disk: Disk) -> None:
    assert record(disk.folder) == []
    size = sum(path.stat().st_size for path in disk.folder.iterdir())
    expected = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
    begun = 0
    for room in [*range(200), *range(200, size, 37), size - 1, size, size + 4000]:
        for path in disk.folder.iterdir():
            path.unlink()
        disk.size = room
        try:
            missing = record(disk.folder)
        except OSError:
            assert room < 200  # not even the facts
            assert not (disk.folder / REPORT).exists()
            continue
        begun += 1
        there = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
        assert not any(name.startswith(".") or name == "results.new" for name in there.keys() - {CLAIM})
        for name in (REPORT, "page.txt"):  # whole, or not there and named
            assert there.get(name, expected[name])[:100] == expected[name][:100]
            assert (name in there) == (not any(f"{name}" in line for line in missing)), (room, missing)
        said = " ".join(missing)
        lines = whole_lines(disk.folder)
        assert lines == expected[RESULTS].splitlines(keepends=True)[: len(lines)]
        assert (f"{RESULTS}: {len(CASES) - len(lines)} of its results are not written" in said) == (
            len(lines) < len(CASES)
        )
        assert "No space left on device" in said or not missing
        disk.size = 1 << 30
        with Recorder(disk.folder, about="so", resume={case.id for case in CASES}) as recorder:
            recorder.validate_facts("torch", FACTS, CASES)
            assert recorder.kept == len(lines)
        assert record(disk.folder, resume=True) == []
        assert len(read_results(disk.folder)) == len(CASES)
    assert begun > 20


def test_what_was_there_before_is_not_lost_to_a_run_that_cannot_begin(disk: Disk) -> None:
    assert record(disk.folder) == []
    before = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
    disk.size = 0
    with pytest.raises(OSError, match="No space left"):
        Recorder(disk.folder, about="another")
    with pytest.raises(OSError, match="No space left"):
        Recorder(disk.folder, about="so", resume={CASES[0].id})
    assert {path.name: path.read_bytes() for path in disk.folder.iterdir()} == before


def test_results_wait_for_room_and_are_written_once_there_is(disk: Disk) -> None:
    with Recorder(disk.folder) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        disk.size -= disk.room - 50
        recorder.add(result(CASES[0]))
        recorder.add(result(CASES[1]))
        assert recorder.unwritten == [
            f"{disk.folder / RESULTS}: 2 of its results are not written: No space left on device"
        ]
        assert len((disk.folder / RESULTS).read_bytes()) == 50
        disk.size = 1 << 30
        recorder.add(result(CASES[2]))
        assert recorder.unwritten == []
    assert [one.subject for one in read_results(disk.folder)] == ["relu", "tanh", "elu"]


def test_a_line_half_written_when_others_are_dropped_is_written_anew(disk: Disk) -> None:
    with Recorder(disk.folder) as recorder:
        recorder.validate_facts("torch", FACTS, CASES[:1])
        recorder.add(result(CASES[0]))
    with Recorder(disk.folder, resume={case.id for case in CASES}) as recorder:
        recorder.validate_facts("ort", FACTS, CASES[1:])
        disk.size -= disk.room - 50
        recorder.add(result(CASES[1]))
        assert len(whole_lines(disk.folder)) == 1
        disk.size = 1 << 30
        recorder.validate_facts("torch", {"torch": {"torch": "2.14.0"}}, CASES[:1])
        recorder.add(result(CASES[2]))
        assert recorder.unwritten == []
    assert [one.subject for one in read_results(disk.folder)] == ["tanh", "elu"]


CLEAN = ("run", "relu/value/f32/stand-in", "sigmoid/*/f32/stand-in", "tanh/value/f32/stand-in", "--require", "stand-in")


def ran(environment: dict[str, str], folder: Path, largest: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no file may grow beyond `largest` bytes."""
    code = (
        "import resource, sys; from actconform.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest})); main()"
    )
    command = [sys.executable, "-c", code, *CLEAN, "--out", str(folder), *more]
    return subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("largest", [0, 10, 5_000, 50_000])
def test_a_run_that_could_not_write_all_ends_with_code_1_and_names_it(
    largest: int, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("resource")
    folder = tmp_path / "out"
    done = ran(environment, folder, largest)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "File too large" in done.stdout + done.stderr
    assert "None" not in done.stderr
    if done.stdout:
        assert "DOES NOT CONFORM" in done.stdout
        assert "4 pass" in done.stdout  # what was found is shown all the same
        for name in ("index.html", "report.json", "results.jsonl", "summary.md", "junit.xml", "accuracy.json"):
            path = folder / name
            if not path.exists() or path.stat().st_size == largest:
                assert f"out/{name}" in done.stdout
    for name in ("report.json", "accuracy.json"):
        if (folder / name).exists():
            json.loads((folder / name).read_bytes())
    if (folder / RESULTS).exists() and (folder / "facts.json").exists():
        kept = len(whole_lines(folder))
        again = ran(environment, folder, 1 << 30, "--resume")
        assert (again.returncode, again.stderr) == (0, "")
        assert f"resumed: {kept} of 4 results" in again.stdout


def shown_on(
    screen: int, command: Sequence[str], environment: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ACTCONFORM, *command],
        env=environment,
        cwd=folder,
        stdout=screen,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [("list", "kernels"), ("run", "relu/value/f32/stand-in")])
def test_a_terminal_that_is_gone_is_named(
    command: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    os.close(ours)
    try:
        done = shown_on(theirs, command, environment, tmp_path)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "error: standard output: Input/output error\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("list", "kernels"), 0),
        (("list", "kernels", "--json"), 0),
        ((*CLEAN,), 0),
        ((*CLEAN, "--json"), 0),
        (("run", "nothing/of/the/kind"), 2),
    ],
)
def test_closed_streams_are_written_nowhere(
    command: tuple[str, ...], code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    closing = 'exec "$@" >&- 2>"$0"'
    done = subprocess.run(
        ["sh", "-c", closing, "errors", ACTCONFORM, *command], env=environment, cwd=tmp_path, check=False
    )
    errors = (tmp_path / "errors").read_text(encoding="utf-8")
    assert (done.returncode, "Traceback" in errors) == (code, False)
    assert errors.startswith("error: ") == (code == 2)
    if command[0] == "run" and code == 0:
        assert len(read_results(tmp_path / "conform-out")) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("command", [("list", "kernels"), ("run", "relu/value/f32/stand-in"), ("--help",)])
def test_a_screen_that_cannot_be_written_is_named(
    command: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = shown_on(full.fileno(), command, environment, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"
