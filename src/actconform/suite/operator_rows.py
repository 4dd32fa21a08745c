"""The table of a suite: for each operator and runtime how many cases came to what, and the worst of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actconform.suite.suite_result import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.suite.suite_result import RuntimeVerdict, SuiteRecord


class OperatorRow(msgspec.Struct, kw_only=True):
    """An operator on a runtime. The first three counts are those of ONNX's limits, the rest those of the truth's bounds."""

    operator: str
    runtime: str
    cases: int = 0
    passed: int = 0
    failed: int = 0
    not_supported: int = 0
    within: int = 0
    outside: int = 0
    known: int = 0
    """Of those outside: explained by a registered cause."""
    refused: int = 0
    no_answer: int = 0
    """An error, too little memory, a dead or a hanging process."""
    not_judged: int = 0
    worst_case: str = ""
    worst_ratio: float = 0.0
    """Of the worst case: its error in units of the bound."""

    @property
    def clean(self) -> bool:
        """Whether every case passed and is within its bounds."""
        return self.passed == self.within == self.cases

    def count(self, case: str, verdict: RuntimeVerdict) -> None:
        """Count a case."""
        self.cases += 1
        self.passed += verdict.standard == "passed"
        self.failed += verdict.standard == "failed"
        self.not_supported += verdict.standard == "not supported"
        state, worst = verdict.truth.state, verdict.truth.worst
        self.within += state == "within"
        self.outside += state == "outside"
        self.known += bool(verdict.cause)
        self.refused += state == "refused"
        self.no_answer += state in NO_ANSWER and state != "refused"
        self.not_judged += state == "not judged"
        if worst is not None and (not self.worst_case or worst.ratio > self.worst_ratio):
            self.worst_case, self.worst_ratio = case, worst.ratio


def operator_rows(records: Iterable[SuiteRecord]) -> list[OperatorRow]:
    """Return a row for each runtime and operator, by runtime in the order of the records, then by operator."""
    rows: dict[tuple[str, str], OperatorRow] = {}
    runtimes: dict[str, None] = {}
    for record in records:
        for name, verdict in record.runtimes.items():
            runtimes.setdefault(name)
            key = name, record.operator
            rows.setdefault(key, OperatorRow(operator=record.operator, runtime=name)).count(record.case, verdict)
    order = list(runtimes)
    return [rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1].lower(), key[1]))]


def runtime_totals(rows: Iterable[OperatorRow]) -> list[OperatorRow]:
    """Return a row for each runtime with the sums over operators, and the worst case of all."""
    totals: dict[str, OperatorRow] = {}
    for row in rows:
        total = totals.setdefault(row.runtime, OperatorRow(operator="", runtime=row.runtime))
        for name in COUNTS:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        if row.worst_case and (not total.worst_case or row.worst_ratio > total.worst_ratio):
            total.worst_case, total.worst_ratio = row.worst_case, row.worst_ratio
    return list(totals.values())


def data_states(records: Iterable[SuiteRecord]) -> Counter[str]:
    """Return how many cases ship outputs that are within, outside, or not judged."""
    return Counter(record.data.state for record in records)


COUNTS = (
    "cases", "passed", "failed", "not_supported", "within", "outside", "known", "refused", "no_answer", "not_judged"
)  # fmt: skip
