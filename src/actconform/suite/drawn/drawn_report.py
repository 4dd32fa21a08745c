"""What drawn operators came to: counts for each operator and runtime, and findings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.runs import RuntimeRuns  # noqa: TC001  msgspec reads no annotation of it, functions do
from actconform.errors import UsageError, near
from actconform.suite.drawn.judging import FINDINGS
from actconform.suite.drawn.search import JudgedRuntime, Mistake, draw_examples, shrink
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.suite.drawn.registry import OperatorStrategy
    from actconform.suite.drawn.search import Shrunk

MOST_REASONS = 8  # of one operator and runtime that are kept


class OperatorTally(msgspec.Struct, frozen=True, kw_only=True):
    """One operator in one runtime: how many of its examples came to what."""

    operator: str
    family: str
    runtime: str
    examples: int
    within: int = 0
    refused: int = 0
    """The runtime says that it does not take the graph."""
    wrong: int = 0
    failed: int = 0
    """The runtime takes the graph, and raises at inputs that the standard takes."""
    crash: int = 0
    timeout: int = 0
    unjudged: int = 0
    """The standard leaves every element open, or the true values are not known."""
    worst: float = 0.0
    """The largest error over its bound among the examples that are within."""
    reasons: dict[str, int] = {}
    """Of what was refused or not judged: the words, and how often."""


class DrawnFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a runtime is wrong at an operator, with the simplest graph that shows it."""

    operator: str
    runtime: str
    kind: str
    """shape, dtype, missing, value, nan-made, nan-lost, infinite, unsteady, mutated, failed, crash, timeout."""
    dtype: str
    """Of the first input."""
    examples: int
    """How many of the drawn graphs show it."""
    words: str
    """Of the simplest one."""
    digest: str
    folder: str = ""
    """Where it lies, under the folder of the report; "" where it was not written."""


class DrawnReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. The same seed draws the same graphs with the same releases of actconform, hypothesis, numpy and onnx."""

    versions: dict[str, str]
    seed: int
    examples: int
    runtimes: dict[str, dict[str, str]]
    """The facts of each."""
    tallies: list[OperatorTally]
    findings: list[DrawnFinding]
    not_run: list[str] = []
    """Operators whose turn did not come."""

    @property
    def conforms(self) -> bool:
        """Whether there is no finding, and every operator had its turn."""
        return not self.findings and not self.not_run


def chosen_strategies(patterns: Sequence[str]) -> list[OperatorStrategy]:
    """Return the strategies of the operators that match one of the globs, in the order of families; all where there are none.

    Raises UsageError for a glob that matches none.
    """
    from fnmatch import fnmatchcase

    from actconform.suite.drawn import families  # noqa: F401  they register strategies
    from actconform.suite.drawn.registry import STRATEGIES

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in STRATEGIES):
            raise UsageError(f"--op {one_line(pattern)}: no operator that is drawn{near(pattern, sorted(STRATEGIES))}")
    return [
        strategy
        for name, strategy in STRATEGIES.items()
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def examine(
    strategy: OperatorStrategy,
    runtimes: Sequence[RuntimeRuns],
    examples: int,
    seed: int,
    keep: Callable[[RuntimeRuns, DrawnFinding, Shrunk], str],
) -> tuple[list[OperatorTally], list[DrawnFinding]]:
    """Return what an operator came to in each runtime: up to `examples` graphs, each finding shrunk.

    `keep` writes a finding, and returns the folder that it lies in.
    """
    drawn = draw_examples(strategy, examples, seed)
    tallies: list[OperatorTally] = []
    findings: list[DrawnFinding] = []
    for runs in runtimes:
        runtime = JudgedRuntime(runs)
        verdicts = [(example, runtime.verdict(example)) for example in drawn.examples]
        counts = Counter[str](verdict.outcome for _, verdict in verdicts)
        reasons = Counter(one_line(v.words) for _, v in verdicts if v.outcome in ("refused", "unjudged"))
        tallies.append(
            OperatorTally(
                operator=strategy.op_type,
                family=strategy.family,
                runtime=runs.name,
                examples=len(verdicts),
                worst=max((verdict.ratio for _, verdict in verdicts if verdict.outcome == "within"), default=0.0),
                reasons=dict(reasons.most_common(MOST_REASONS)),
                **counts,
            )
        )
        mistakes = Counter(Mistake(v.kind, example.dtype) for example, v in verdicts if v.outcome in FINDINGS)
        for mistake, count in mistakes.items():
            shrunk = shrink(strategy, runtime, mistake, examples, seed)
            if shrunk is None:  # it did not answer alike: what it said at first is kept by its number alone
                continue
            finding = DrawnFinding(
                operator=strategy.op_type,
                runtime=runs.name,
                kind=mistake.kind,
                dtype=mistake.dtype,
                examples=count,
                words=one_line(shrunk.verdict.words),
                digest=shrunk.example.digest,
            )
            findings.append(msgspec.structs.replace(finding, folder=keep(runs, finding, shrunk)))
    return tallies, findings
