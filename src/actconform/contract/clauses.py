"""The contract, clause by clause: what was promised, whether the evidence keeps it, and what to do where it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from actconform.contract.evidence import not_closed
from actconform.text import number_of
from actconform.types import FindingClass
from actconform.workers.process_state import KEPT, SUBNORMALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actconform.contract.evidence import Evidence

State = Literal["ok", "broken", "not applicable"]

SLOW = 1.0  # seconds for one call of supports; building takes longer where a framework compiles
VERSION = re.compile(r"\d+\.\d+")


class Clause(msgspec.Struct, frozen=True):
    """One clause: `message` says in short how it stands, `broken` has each breach, `fix` what to do about them."""

    name: str
    state: State
    message: str = msgspec.field(name="said")
    broken: tuple[str, ...] = ()
    fix: str = msgspec.field(default="", name="mend")


class _Promise(msgspec.Struct, frozen=True):
    """What a clause requires: every breach in words, the message where there is none, what to do, and why it does not apply."""

    breaches: Callable[[Evidence], Iterable[str]]
    message: str
    fix: str
    not_applicable: Callable[[Evidence], str] = lambda _: ""


def clauses(evidence: Evidence) -> list[Clause]:
    """Return every clause of the contract, in order, for a backend that can run here."""
    return [_clause(name, promise, evidence) for name, promise in PROMISES.items()]


def _clause(name: str, promise: _Promise, evidence: Evidence) -> Clause:
    broken = tuple(dict.fromkeys(promise.breaches(evidence)))  # the same in several regimes is one
    if broken:
        return Clause(name, "broken", number_of(len(broken), "breach", "breaches"), broken, promise.fix)
    if reason := promise.not_applicable(evidence):
        return Clause(name, "not applicable", reason)
    return Clause(name, "ok", promise.message)


def _facts(evidence: Evidence) -> Iterable[str]:
    yield from (wrong for record in evidence.all_records for notes in record.notes for wrong in notes.facts)
    facts = evidence.hello.facts
    if "threads" not in facts:
        yield f"no threads among {', '.join(facts) or 'no facts at all'}"
    if not any(VERSION.search(value) for value in facts.values()):
        yield "no version of anything"
    for fact in sorted({*facts, *evidence.facts_again}):
        first, second = facts.get(fact, "nothing"), evidence.facts_again.get(fact, "nothing")
        if first != second:
            yield f"{fact} is {first} in one process, {second} in the next"


def _supports(evidence: Evidence) -> Iterable[str]:
    for record in evidence.all_records:
        failure = record.outcome.failure if record.outcome else None
        if record.insisted:
            yield f"{record.case.id}: supports says no, and it is built and answers"
        if failure and failure.kind in ("error", "memory") and failure.stage == "supports":
            yield f"{record.case.id}: supports raised {failure.message}"
        if failure and failure.kind in ("error", "memory") and failure.stage == "run" and not not_closed(failure):
            yield f"{record.case.id}: supports says yes, it is built, and the call raised {failure.message}"
        slowest = max((notes.seconds for notes in record.notes), default=0.0)
        if slowest > SLOW:
            yield f"{record.case.id}: supports took {slowest:.1f} s"
    if evidence.unknown and evidence.unknown.answered:
        yield f"{evidence.unknown.case.id}: answers a {_of(evidence)} that it cannot know"


def _errors(evidence: Evidence) -> Iterable[str]:
    for record in evidence.all_records:
        failure = record.outcome.failure if record.outcome else None
        if record.died:
            yield f"{record.case.id}: {record.died}"
        if failure and failure.kind in ("error", "memory") and failure.stage in ("build", "load"):
            yield f"{record.case.id}: {failure.stage} raised {failure.message}"
        if record.refused is not None and (not record.refused.strip() or record.refused.endswith("gives no reason")):
            yield f"{record.case.id}: refused without a reason"
    if evidence.gave_up:
        yield "its process died again and again: the remaining cases were not run"


def _close(evidence: Evidence) -> Iterable[str]:
    for record in evidence.all_records:
        failure = record.outcome.failure if record.outcome else None
        if failure and not_closed(failure):
            yield f"{record.case.id}: close raised {failure.message}"
    yield from _of_class(FindingClass.MEMORY_GROWTH)(evidence)


def _determinism(evidence: Evidence) -> Iterable[str]:
    yield from _of_class(FindingClass.NONDETERMINISTIC)(evidence)
    if evidence.differs:
        yield f"{evidence.differs}: another process gives other outputs"


def _placement(evidence: Evidence) -> Iterable[str]:
    yield from _of_class(FindingClass.PLACEMENT)(evidence)
    provider = evidence.backend.provider
    placed = any(record.outcome and record.outcome.placement for record in evidence.answered)
    if provider and evidence.answered and not placed:
        yield f"claims that all nodes run on {provider}, and no program says where its nodes ran"


def _state(evidence: Evidence) -> Iterable[str]:
    reported = set()
    declared = evidence.hello.facts.get("subnormals", KEPT) != KEPT
    for record in evidence.all_records:
        for change in (change for notes in record.notes for change in notes.changed):
            if declared and any(f": {name}: " in change for name in SUBNORMALS):
                continue
            if change not in reported:  # a setting that is changed once and again is one breach
                reported.add(change)
                yield f"{record.case.id}: {change}"


def _answers(evidence: Evidence) -> Iterable[str]:
    if not evidence.answered:
        reasons = "; ".join(reason for reason, _ in evidence.reasons()[:3])
        yield f"answered none of {number_of(len(evidence.records), 'case')}{': ' if reasons else ''}{reasons}"


def _of_class(class_: FindingClass) -> Callable[[Evidence], Iterable[str]]:
    def breaches(evidence: Evidence) -> Iterable[str]:
        for record in evidence.answered:
            for finding in record.findings:
                if finding.class_ == class_:
                    yield f"{record.case.id}: {finding.tensor}{': ' if finding.tensor else ''}{finding.evidence}"

    return breaches


def _no_answers(evidence: Evidence) -> str:
    return "" if evidence.answered else "it answers nothing yet"


def _no_provider(evidence: Evidence) -> str:
    return _no_answers(evidence) or ("" if evidence.backend.provider else "claims no execution provider")


def _of(evidence: Evidence) -> str:
    return "kernel" if evidence.backend.kind == "framework" else "graph"


PROMISES: dict[str, _Promise] = {
    "facts": _Promise(
        _facts,
        "str to str, with threads and a version, the same in two processes",
        "return a dict of str to str that holds whatever explains a number, the framework's version and threads among it; "
        "nothing in it may differ from process to process",
    ),
    "supports": _Promise(
        _supports,
        "answers at once, and keeps its word",
        "where it cannot be done say no, or raise Unsupported in build, load or the call; where it can, say yes; "
        "give a name that you do not know to nobody else's function",
    ),
    "errors": _Promise(
        _errors,
        "what it does not do is Unsupported, with a reason",
        "raise actconform.Unsupported, in the framework's words, for whatever the framework has not; all else is an ERROR",
    ),
    "answers": _Promise(
        _answers,
        "answers at least one case",
        "implement one kernel, or load one graph; what is refused conforms to nothing",
    ),
    "names": _Promise(
        _of_class(FindingClass.NAMES),
        "outputs have the names of the definition",
        'return "y", of a model "y" and "loss", of a vjp "d_NAME" for every differentiable input, and nothing else',
        _no_answers,
    ),
    "shapes": _Promise(
        _of_class(FindingClass.SHAPE),
        "outputs have the shapes of the definition, at several sizes by one program",
        "return what the definition says, for every size of input; build for no particular one",
        _no_answers,
    ),
    "dtypes": _Promise(
        _of_class(FindingClass.DTYPE),
        "outputs have the dtype of the inputs",
        "return f32 for f32, f16 for f16, bf16 for bf16 (numpy arrays of ml_dtypes.bfloat16); where the framework computes in "
        "another dtype only, raise Unsupported; where it returns another one on purpose, register that in causes.toml",
        _no_answers,
    ),
    "mutation": _Promise(
        _of_class(FindingClass.MUTATES_INPUT),
        "inputs are as they were",
        "copy what the framework writes to, or shares memory with",
        _no_answers,
    ),
    "determinism": _Promise(
        _determinism,
        "the same inputs give the same outputs",
        "keep nothing from call to call, draw no random numbers, switch on the framework's deterministic mode",
        _no_answers,
    ),
    "placement": _Promise(
        _placement,
        "every node ran where it was claimed to run",
        "set Program.placement to {execution provider: operators} from what the runtime reports, or claim no provider",
        _no_provider,
    ),
    "survival": _Promise(
        lambda evidence: evidence.survival.breaches,
        "marks on tensors that survive optimization change nothing",
        "return from surviving_tensors only names of the graph's tensors that are computed, under these names, when they are no "
        "outputs; or do not write it",
        lambda evidence: evidence.survival.not_applicable,
    ),
    "close": _Promise(
        _close,
        "ends without an error; calls and programs leave nothing behind",
        "close may be called after any calls, or none; it must not raise; a call must free what it took, close what the program did",
    ),
    "state": _Promise(
        _state,
        "floating point, defaults, random states and environment are left alone",
        "put back what you change, or do not change it: it alters other numbers in the same process",
    ),
}
