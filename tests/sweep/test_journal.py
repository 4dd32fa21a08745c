"""A journal holds whole chunks of one sweep, whatever ended the earlier one."""

from __future__ import annotations

import errno
import io
import json
import os

import msgspec
import pytest

from actconform.errors import UsageError
from actconform.exhaustive.statistics import BinadeErrors, SweepStatistics, WorstError
from actconform.sweep.journal import CoveredFinding, SweepIdentity, SweepJournal, SweptChunk, read_sweep, read_sweeps
from actconform.types import Case, Finding, FindingClass, Interval

IDENTITY = SweepIdentity(
    actconform="1.0",
    case=Case("tanh", "value", "f32", "torch"),
    extent="quick",
    definition="d" * 64,
    provider="actconform-torch 1.0",
    facts={"torch": "2.13"},
)


def chunk(number):
    errors = BinadeErrors(2 * number, WorstError(float("inf"), "0x00000001"), WorstError(0.5, "0x00000002"))
    return SweptChunk(
        chunk=number, sha256="a" * 64, statistics=SweepStatistics(inputs=7, binades=(errors,)), seconds=1.0
    )


@pytest.fixture
def written(tmp_path):
    with SweepJournal(tmp_path, IDENTITY, resume=False) as journal:
        for number in (63, 5):
            journal.add(chunk(number))
    return journal.path


def test_what_is_written_is_read(written, tmp_path):
    assert written.name == "tanh.value.torch.quick.sweep.jsonl"
    with SweepJournal(tmp_path, IDENTITY, resume=True) as journal:
        assert journal.earlier == {63: chunk(63), 5: chunk(5)}
        journal.add(chunk(6))
    sweep = read_sweep(written)
    assert (sweep.identity, sorted(sweep.chunks), sweep.complete) == (IDENTITY, [5, 6, 63], False)
    assert sweep.statistics.inputs == 21
    assert [each.identity for each in read_sweeps(tmp_path)] == [IDENTITY]


def test_causes_stand_with_their_findings_and_are_looked_for_anew(tmp_path):
    finding = Finding(
        class_=FindingClass.TAIL,
        count=1,
        regime="sweep",
        tensor="y",
        interval=Interval("0x1", "0x2"),
        worst=None,
        magnitude=9.0,
    )
    with SweepJournal(tmp_path, IDENTITY, resume=False) as journal:
        statistics = SweepStatistics(findings=(finding, msgspec.structs.replace(finding, class_=FindingClass.INF)))
        journal.add(SweptChunk(chunk=1, sha256="", statistics=statistics, seconds=1.0))
        journal.add_causes([CoveredFinding(FindingClass.TAIL, "y", Interval("0x1", "0x2"), "known")])
    assert [each.deviation for each in read_sweep(journal.path).statistics.findings] == ["known", None]
    with SweepJournal(tmp_path, IDENTITY, resume=True) as again:
        assert (list(again.earlier), again.dropped) == ([1], 0)
        again.add_causes([])
    assert [each.deviation for each in read_sweep(journal.path).statistics.findings] == [None, None]


def test_a_cause_of_a_chunk_of_a_sample_says_nothing_of_another_chunk(tmp_path):
    interval = Interval("0x1", "0x2")
    finding = Finding(
        class_=FindingClass.TAIL, count=1, regime="sweep", tensor="y", interval=interval, worst=None, magnitude=9.0
    )
    with SweepJournal(tmp_path, IDENTITY, resume=False) as journal:
        for number in (2, 1):
            journal.add(
                SweptChunk(chunk=number, sha256="", statistics=SweepStatistics(findings=(finding,)), seconds=1.0)
            )
        journal.add_causes([CoveredFinding(FindingClass.TAIL, "y", interval, "known", chunk=2)])
    assert [each.deviation for each in read_sweep(journal.path).statistics.findings] == [None, "known"]


def test_a_journal_that_was_cut_at_any_byte_of_its_chunks_goes_on(written, tmp_path):
    content = written.read_bytes()
    head = content.index(b"\n") + 1
    for size in range(head, len(content), 13):
        written.write_bytes(content[:size])
        kept = content[head:size].count(b"\n")
        assert len(read_sweep(written).chunks) == kept
        with SweepJournal(tmp_path, IDENTITY, resume=True) as journal:
            assert len(journal.earlier) == kept
            journal.add(chunk(200))
        assert len(read_sweep(written).chunks) == kept + 1
        assert all(json.loads(line) for line in written.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"actconform": "1.1"}, "actconform was 1.0, is 1.1"),
        ({"case": Case("silu", "value", "f32", "torch")}, "kernel was tanh, is silu"),
        ({"case": Case("tanh", "gradient", "f32", "torch")}, "aspect was value, is gradient"),
        ({"case": Case("tanh", "value", "f32", "keras")}, "route was torch, is keras"),
        ({"extent": "all"}, "extent was quick, is all"),
        ({"facts": {"torch": "2.14", "cpu": "x"}}, "torch was 2.13, is 2.14; cpu was not there, is x"),
    ],
)
def test_a_journal_of_another_sweep_is_refused_and_both_are_named(written, tmp_path, changed, words):
    identity = msgspec.structs.replace(IDENTITY, **changed)
    written.rename(tmp_path / identity.file_name)
    with pytest.raises(UsageError, match=f"is of another sweep: {words}"):
        SweepJournal(tmp_path, identity, resume=True)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff\n", b'{"sweep":{"actconform":1}}\n', b"[" * 100_000])
def test_what_is_no_journal_is_refused(tmp_path, content):
    path = tmp_path / IDENTITY.file_name
    path.write_bytes(content)
    with pytest.raises(UsageError, match="its first line names no"):
        SweepJournal(tmp_path, IDENTITY, resume=True)
    with pytest.raises(UsageError, match="is no journal of a sweep"):
        read_sweep(path)


def test_lines_that_are_no_chunks_are_dropped(written, tmp_path):
    outside = msgspec.json.encode(msgspec.structs.replace(chunk(0), chunk=256))
    written.write_bytes(written.read_bytes() + b'{"chunk":1}\n' + outside + b"\n")
    with SweepJournal(tmp_path, IDENTITY, resume=True) as journal:
        assert sorted(journal.earlier) == [5, 63]
        assert journal.dropped == 2


def test_a_full_disk_is_told_of_the_journal(tmp_path, monkeypatch):
    with SweepJournal(tmp_path, IDENTITY, resume=False) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_file", FullDisk())
            with pytest.raises(OSError, match="No space left") as caught:
                journal.add(chunk(63))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(journal.path))


def test_a_line_of_which_the_disk_takes_a_part_is_no_line(tmp_path, monkeypatch):
    with SweepJournal(tmp_path, IDENTITY, resume=False) as journal:
        disk = AlmostFullDisk(b"")
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_file", disk)
            with pytest.raises(OSError, match="No space left"):
                journal.add(chunk(63))
        assert len(disk.getvalue()) == 100


class AlmostFullDisk(io.BytesIO):
    """A file on a disk that takes 100 bytes more."""

    def write(self, data):
        room = 100 - self.tell()
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


class FullDisk(io.BytesIO):
    """A file on a disk that is full; as with Python's own files, the error names none."""

    def write(self, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
