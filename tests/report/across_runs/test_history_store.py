"""The history in one file: what it keeps, what a kill leaves, and that no damage is read as if it were nothing."""

from __future__ import annotations

import errno
import io
import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from made import FACTS, finding, measurement, report, result

from actconform.errors import UsageError
from actconform.report.across_runs import history_store
from actconform.report.across_runs.history import trends
from actconform.report.across_runs.history_store import HEAD, add_runs, past_run, read_history
from actconform.types import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.report.across_runs.history_store import PastRun

RELU, ELU = "relu/value/f32/torch", "elu/value/f32/torch"


def night(number: int, *results, torch: str = "2.12.0", problems: tuple[str, ...] = ()) -> PastRun:
    facts = msgspec.structs.replace(FACTS, backends={"torch": {"torch": torch}})
    return past_run(report(*results, when=f"2026-02-{number:02d}T00:00:00Z", facts=facts, problems=problems))


NIGHTS = [
    night(1, result(RELU), result(ELU, findings=(finding("tail"),))),
    night(2, result(RELU, findings=(finding("inf"), finding("tail"))), result(ELU, findings=(finding("tail"),)), torch="2.13.0"),
    night(3, result(ELU, verdict=Verdict.CRASH, measurements=()), torch="2.13.0", problems=("1 CRASH",)),
    night(4, result(RELU), result(ELU, measurements=(measurement(float("inf")),)), torch="2.13.0"),
]  # fmt: skip


def test_every_run_comes_back_as_it_was(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    for run in NIGHTS:
        assert add_runs(store, [run]).added == [run.when]
    back = list(read_history(store))
    for run, read in zip(NIGHTS, back, strict=True):
        assert read.results == run.results
        assert (read.when, read.facts, read.conforms, read.problems) == (
            run.when,
            run.facts,
            run.conforms,
            run.problems,
        )
    assert [run.changed for run in back] == [(RELU, ELU), (RELU,), (ELU,), (RELU, ELU)]
    assert [run.gone for run in back] == [(), (), (RELU,), ()]
    assert trends(read_history(store)) == trends(NIGHTS)


def test_one_line_is_written_for_a_case_that_changed_and_facts_where_they_did(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    add_runs(store, NIGHTS)
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    assert [line.get("case", line.get("run")) for line in lines[1:]] == [
        RELU, ELU, NIGHTS[0].when, RELU, NIGHTS[1].when, ELU, NIGHTS[2].when, RELU, ELU, NIGHTS[3].when
    ]  # fmt: skip
    assert ["facts" in line for line in lines if "run" in line] == [True, True, False, False]


def test_an_error_is_another_by_the_rule_of_diff_and_small_steps_add_up(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    for number, scaled in enumerate((1.0, 1.5, 1.9, 2.1, 2.5), 1):
        add_runs(store, [night(number, result(measurements=(measurement(scaled),)))])
    shares = [run.results[RELU].share for run in list(read_history(store))]
    assert shares == [1 / 8, 1 / 8, 1 / 8, 2.1 / 8, 2.1 / 8]
    at_once = tmp_path / "at-once.jsonl"
    add_runs(
        at_once, [night(n, result(measurements=(measurement(s),))) for n, s in enumerate((1.0, 1.5, 1.9, 2.1, 2.5), 1)]
    )
    assert at_once.read_bytes() == store.read_bytes()


@given(st.data())
def test_a_kill_at_any_byte_loses_no_earlier_run_and_the_next_addition_mends_it(tmp_path_factory, data) -> None:
    store = tmp_path_factory.mktemp("kill") / "history.jsonl"
    add_runs(store, NIGHTS[:2])
    before = store.stat().st_size
    add_runs(store, NIGHTS[2:3])
    whole = store.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    store.write_bytes(whole[:cut])
    if cut > len(HEAD):
        survivors = [run.when for run in read_history(store)]
        assert survivors == [run.when for run in NIGHTS[: len(survivors)]]
        assert len(survivors) == 2 or cut < before
    done = add_runs(store, NIGHTS[:3])
    assert store.read_bytes() == whole
    assert [*done.present, *done.added] == [run.when for run in NIGHTS[:3]]


def test_what_is_there_is_not_added_twice(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    add_runs(store, NIGHTS)
    before = store.read_bytes()
    assert add_runs(store, NIGHTS) == ([], [run.when for run in NIGHTS], 0)
    assert store.read_bytes() == before


def test_what_is_out_of_order_or_has_no_time_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    add_runs(store, NIGHTS[1:])
    before = store.read_bytes()
    with pytest.raises(UsageError, match="its last run is of 2026-02-04"):
        add_runs(store, NIGHTS[:1])
    with pytest.raises(UsageError, match="another run of 2026-02-04"):
        add_runs(store, [night(4, result(ELU))])
    with pytest.raises(UsageError, match="no time of its run"):
        add_runs(store, [NIGHTS[0]._replace(when="")])
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "lines are missing"),
        (lambda lines: [lines[0], lines[1][:-9], *lines[2:]], "line 2: is damaged"),
        (lambda lines: [lines[0], b"\xff", *lines[1:]], "line 2: is damaged"),
        (lambda lines: [*lines[:4], lines[4].replace(b'"torch"', b'"jax"'), *lines[4:]], "lines are missing"),
        (lambda lines: [*lines[:4], *lines[3:]], "lines are missing"),
        (lambda lines: lines[1:], "is no history"),
        (lambda lines: [b"{}", *lines], "is no history"),
        (lambda _: [b"notes of mine"], "is no history"),
        (lambda _: [], "is no history.*it is empty"),
    ],
    ids=["lost", "cut", "foreign", "doubled", "run-doubled", "headless", "other-head", "other-file", "empty"],
)
def test_damage_is_named_and_never_dropped(tmp_path: Path, damage, words: str) -> None:
    store = tmp_path / "history.jsonl"
    add_runs(store, NIGHTS)
    store.write_bytes(b"".join(line + b"\n" for line in damage(store.read_bytes().splitlines())))
    before = store.read_bytes()
    with pytest.raises(UsageError, match=words):
        list(read_history(store))
    if before:
        with pytest.raises(UsageError, match=words):
            add_runs(store, NIGHTS[:1])
    assert store.read_bytes() == before


def test_a_file_that_another_process_writes_or_that_is_none_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "history.jsonl"
    with FileLock(store.with_name(".history.jsonl.lock")), pytest.raises(UsageError, match="another process writes it"):
        add_runs(store, NIGHTS)
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "no regular file"),
        (tmp_path, "no regular file"),
        (tmp_path / "no" / "h", "cannot be written"),
    ):
        with pytest.raises(UsageError, match=words):
            add_runs(path, NIGHTS)
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_history(tmp_path / "gone"))


@pytest.mark.parametrize("room", [0, 1, 30, 200])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    store = tmp_path / "history.jsonl"
    add_runs(store, NIGHTS[:2])
    before = store.read_bytes()

    class Full(io.FileIO):
        left = room

        def write(self, text):
            taken = bytes(text)[: self.left]
            self.left -= len(taken)
            if not taken:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(taken)

    monkeypatch.setattr(history_store, "open", lambda descriptor, *_, **__: Full(descriptor, "r+b"), raising=False)
    with pytest.raises(UsageError, match=r"history\.jsonl: the run of 2026-02-0[34].* No space left"):
        add_runs(store, NIGHTS[2:])
    whole_runs = [run.when for run in read_history(store)]
    assert store.read_bytes().startswith(before)
    assert whole_runs == [run.when for run in NIGHTS[: len(whole_runs)]]
    assert store.read_bytes().endswith(b"}\n")
