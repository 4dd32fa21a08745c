"""The journal of a suite: whole lines, numbers that are not finite, another run's journal refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from actconform.errors import UsageError
from actconform.suite.suite_journal import SUITE_JOURNAL, SuiteJournal
from actconform.suite.suite_result import (
    BoundVerdict,
    FarthestElement,
    RuntimeFacts,
    RuntimeVerdict,
    SuiteIdentity,
    SuiteRecord,
)

IDENTITY = SuiteIdentity(suite="onnx", version="1", actconform="0", runtimes=(RuntimeFacts(name="a runtime"),))
WORST = FarthestElement(output="y", data_set=0, difference="NaN made", ratio=float("inf"), got=float("nan"), wanted=1.0)


def record(case):
    verdict = RuntimeVerdict(standard="failed", truth=BoundVerdict(state="outside", worst=WORST), blame="runtime")
    return SuiteRecord(
        case=case,
        kind="node",
        operator="Exp",
        operators=("Exp",),
        opset=17,
        data=BoundVerdict(state="within"),
        runtimes={"a runtime": verdict},
    )


def test_records_come_back_as_they_were_and_a_torn_line_does_not(tmp_path):
    with SuiteJournal(tmp_path, IDENTITY, resume=False) as journal:
        journal.add(record("first"))
        journal.add(record("second"))
    path = tmp_path / SUITE_JOURNAL
    content = path.read_bytes()
    path.write_bytes(content + b"no record\n" + content.splitlines()[-1][:40])
    with SuiteJournal(tmp_path, IDENTITY, resume=True) as journal:
        assert journal.dropped == 2
        assert list(journal.earlier) == ["node/first", "node/second"]
        worst = journal.earlier["node/first"].runtimes["a runtime"].truth.worst
        assert (worst.ratio, worst.difference, worst.got != worst.got) == (float("inf"), "NaN made", True)
        journal.add(record("third"))
    assert path.read_bytes().startswith(content)
    with SuiteJournal(tmp_path, IDENTITY, resume=True) as journal:
        assert (len(journal.earlier), journal.dropped) == (3, 0)


def test_the_journal_of_other_versions_is_refused_and_stays(tmp_path):
    with SuiteJournal(tmp_path, IDENTITY, resume=False) as journal:
        journal.add(record("first"))
    before = (tmp_path / SUITE_JOURNAL).read_bytes()
    with pytest.raises(UsageError, match=r"onnx 1, a runtime.*onnx 2, a runtime"):
        SuiteJournal(tmp_path, replace(IDENTITY, version="2"), resume=True)
    assert (tmp_path / SUITE_JOURNAL).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"[1]\n", b'{"run": 3}\n'])
def test_what_is_no_journal_is_refused(tmp_path, content):
    (tmp_path / SUITE_JOURNAL).write_bytes(content)
    with pytest.raises(UsageError, match="its first line names no suite"):
        SuiteJournal(tmp_path, IDENTITY, resume=True)


def test_there_must_be_a_journal_to_go_on_from(tmp_path):
    with pytest.raises(UsageError, match=r"no .*suite.jsonl to go on from"):
        SuiteJournal(tmp_path, IDENTITY, resume=True)


def test_two_runs_do_not_write_one_journal(tmp_path):
    with SuiteJournal(tmp_path, IDENTITY, resume=False), pytest.raises(UsageError, match="another suite"):
        SuiteJournal(tmp_path, IDENTITY, resume=True)
