"""Drawing graphs of an operator with hypothesis, and shrinking those at which a runtime is wrong."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.model_file import ModelFile
from actconform.errors import UsageError
from actconform.suite.drawn.drawer import Drawer
from actconform.suite.drawn.judging import FINDINGS, DrawnVerdict, judged_answer
from actconform.suite.drawn.node import InvalidDrawError, example_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.part import PartialModel
    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.drawn.node import DrawnNode
    from actconform.suite.drawn.registry import OperatorStrategy

MOST_SHRINKING_RUNS = 120  # of a runtime, for one finding
MOST_FATAL_RUNS = 16  # likewise, where each costs a new process or the time of a timeout
ASKED = 4  # draws for each example that is wanted: some are drawn twice, or are none of the standard


class DrawnExample(NamedTuple):
    """A graph that was drawn, and what tells it from others."""

    digest: str
    part: PartialModel
    dtype: str
    """Of the first input of the node."""


class DrawnSet(NamedTuple):
    """What was drawn of one operator."""

    examples: list[DrawnExample]
    """Different ones, in the order in which they were drawn."""
    invalid: int
    """How many more graphs were drawn that the standard does not take."""


class Mistake(NamedTuple):
    """One way in which a runtime is wrong: `DrawnVerdict.kind`, at a dtype of the first input."""

    kind: str
    dtype: str


class Shrunk(NamedTuple):
    """The simplest graph at which a runtime is wrong in one way."""

    example: DrawnExample
    verdict: DrawnVerdict


class JudgedRuntime:
    """A runtime whose verdicts on graphs are kept, so that none runs twice."""

    def __init__(self, runs: RuntimeRuns) -> None:
        self.runs = runs
        self.count = 0
        """Of graphs that ran."""
        self._verdicts: dict[str, DrawnVerdict] = {}

    def verdict(self, example: DrawnExample) -> DrawnVerdict:
        """Return the verdict on a graph; it runs where it has not yet."""
        kept = self._verdicts.get(example.digest)
        if kept is None:
            self.count += 1
            with ModelFile(example.part.model) as file:
                kept = judged_answer(example.part, self.runs.outputs(file, example.part.inputs))
            self._verdicts[example.digest] = kept._replace(accepted={})
        return kept

    def knows(self, example: DrawnExample) -> bool:
        """Tell whether a graph has its verdict."""
        return example.digest in self._verdicts


def expect_hypothesis() -> None:
    """Raise UsageError, saying how to install it, where hypothesis is missing."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise UsageError('drawn operators need hypothesis: pip install "actconform[suite]"') from None


def draw_examples(strategy: OperatorStrategy, count: int, seed: int) -> DrawnSet:
    """Return up to `count` different graphs of an operator that the standard takes: the same for a seed, and a release of hypothesis.

    Raises UsageError where hypothesis is not installed.
    """
    examples: dict[str, DrawnExample] = {}
    invalid: set[str] = set()

    def collect(node: DrawnNode) -> bool:
        try:
            example = _example(node)
        except InvalidDrawError as error:
            invalid.add(str(error))
        else:
            examples.setdefault(example.digest, example)
        return len(examples) >= count

    _search(strategy, collect, ASKED * count, seed, shrinking=False)
    return DrawnSet(list(examples.values()), len(invalid))


def shrink(
    strategy: OperatorStrategy, runtime: JudgedRuntime, mistake: Mistake, count: int, seed: int
) -> Shrunk | None:
    """Return the simplest graph at which the runtime is wrong in that way, of the first that `draw_examples` gives and what it shrinks to.

    None where none of them is. After MOST_SHRINKING_RUNS runs the simplest so far is returned.
    """
    simplest: list[Shrunk] = []
    start = runtime.count

    def fails(node: DrawnNode) -> bool:
        try:
            example = _example(node)
        except InvalidDrawError:
            return False
        most = MOST_FATAL_RUNS if mistake.kind in ("crash", "timeout") else MOST_SHRINKING_RUNS
        if simplest and runtime.count - start >= most and not runtime.knows(example):
            return False
        verdict = runtime.verdict(example)
        wrong = verdict.outcome in FINDINGS and Mistake(verdict.kind, example.dtype) == mistake
        if wrong:
            simplest.append(Shrunk(example, verdict))
        return wrong

    found = _search(strategy, fails, ASKED * count, seed, shrinking=True)
    if found is None:
        return None
    last = example_digest(found.model())
    return next(shrunk for shrunk in reversed(simplest) if shrunk.example.digest == last)


def _example(node: DrawnNode) -> DrawnExample:
    part = node.model()
    dtype = next((array.dtype.name for array in node.inputs if array is not None), "")
    return DrawnExample(example_digest(part), part, dtype)


def _search(
    strategy: OperatorStrategy, condition: Callable[[DrawnNode], bool], count: int, seed: int, *, shrinking: bool
) -> DrawnNode | None:
    """Return the simplest node that hypothesis comes to at which the condition holds, None where it holds nowhere."""
    expect_hypothesis()
    import hypothesis
    from hypothesis import strategies

    def node(numbers: Random) -> DrawnNode:
        opset = strategy.opsets[numbers.randint(0, len(strategy.opsets) - 1)]
        return strategy.draw(Drawer(strategy.op_type, opset, numbers))

    # numbers of a strategy of its own each would be copied from place to place, and graphs be alike
    nodes = strategies.randoms(use_true_random=False).map(node)
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrinking else [])]
    chosen = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    with _unlimited_shrinking():
        try:
            return hypothesis.find(nodes, condition, settings=chosen, random=Random(seed))  # noqa: S311  the same draws in every run
        except hypothesis.errors.NoSuchExample:
            return None


@contextmanager
def _unlimited_shrinking() -> Iterator[None]:
    """Have no clock end the shrinking, which would give another graph on a slower machine."""
    from hypothesis.internal.conjecture import engine

    limit = engine.MAX_SHRINKING_SECONDS
    engine.MAX_SHRINKING_SECONDS = 10**9
    try:
        yield
    finally:
        engine.MAX_SHRINKING_SECONDS = limit
