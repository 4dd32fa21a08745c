"""What was observed on machines measured: which causes covered each case, how much of their bounds was used. The ratchet.

`golden/observed.json` is written by `actconform deviations observe` and reviewed as a diff. Under equal facts a run must not be worse
than what was observed: no class of finding that was not there, no used share larger by a quarter. Under other facts the formulas alone
decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.errors import ObservedError
from actconform.files import read_bytes
from actconform.testdata.golden.store import OBSERVED
from actconform.text import number_of
from actconform.types import RAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from actconform.types import Result


GROWTH = 1.25  # of a used share, under equal facts
SLACK = 0.01  # of a bound, below which growth is not reported
PASSING = ("python", "platform", "cpu")  # facts that say who ran, not what computed

Facts = dict[str, dict[str, str]]


class ObservedCase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was observed of one case: findings by class, elements and used share by cause."""

    classes: tuple[str, ...] = ()
    elements: dict[str, int] = {}
    used: dict[str, float] = {}


class ObservedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run that was recorded: its facts by backend, and what was observed of its cases; a clean one has nothing."""

    when: str
    facts: Facts
    cases: dict[str, ObservedCase]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """All runs recorded, newest last."""

    schema: int = 1
    machines: tuple[ObservedRun, ...] = ()


def read_observed(folder: Path, name: str = OBSERVED) -> Observed:
    """Return what the file in the folder holds, nothing where it is not there. Raises ObservedError where it cannot be read."""
    path = folder / name
    try:
        return msgspec.json.decode(read_bytes(path), type=Observed)
    except FileNotFoundError:
        return Observed()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ObservedError(
            f"{path}: not what `actconform deviations observe` writes ({error}); restore it, or delete it and observe anew"
        ) from error


def observe(results: Iterable[Result], facts: Facts, when: str) -> ObservedRun:
    """Return what a run observed, to be kept."""
    cases = {result.case: _observation(result) for result in results if result.verdict in RAN}
    return ObservedRun(when=when, facts=_lasting(facts), cases=dict(sorted(cases.items())))


def with_machine(observed: Observed, machine: ObservedRun) -> Observed:
    """Return the file with a run added; what was observed under the same facts is replaced, case by case."""
    other_runs = []
    cases = dict(machine.cases)
    for before in observed.machines:
        if before.facts == machine.facts:
            cases = {**before.cases, **cases}
        else:
            other_runs.append(before)
    merged = msgspec.structs.replace(machine, cases=dict(sorted(cases.items())))
    return Observed(machines=(*other_runs, merged))


def as_text(observed: Observed) -> bytes:
    """Return the file: one line a case, so that a change is read as a diff."""
    lines = ['{"schema":1,"machines":[']
    for number, machine in enumerate(observed.machines):
        lines.append('{"when":%s,"facts":%s,"cases":{' % (_json(machine.when), _json(machine.facts)))  # noqa: UP031  braces
        cases = [f"{_json(case)}:{_json(observation)}" for case, observation in machine.cases.items()]
        lines.append(",\n".join(cases))
        lines.append("}}" + ("," if number + 1 < len(observed.machines) else ""))
    return ("\n".join([*lines, "]}"]) + "\n").encode()


def worse(
    results: Iterable[Result], facts: Facts, backends: Mapping[str, Sequence[str]], observed: Observed
) -> list[str]:
    """Return, as messages, how the run is worse than what was observed under equal facts.

    `backends` maps each case to the backends whose facts its result depends on.
    """
    messages = []
    for result in results:
        if result.verdict not in RAN:
            continue
        before = _before(result.case, facts, backends.get(result.case, ()), observed)
        if before is None:
            continue
        now = _observation(result)
        if new := sorted(set(now.classes) - set(before.classes)):
            messages.append(f"worse than observed under equal facts: {result.case} has {', '.join(new)}")
        for cause, used in now.used.items():
            if cause in before.used and used > GROWTH * before.used[cause] + SLACK:
                was = before.used[cause]
                messages.append(
                    f"worse than observed under equal facts: {result.case} uses {used:.2g} of the bound of {cause}, was {was:.2g}"
                )
    return messages


def idle(
    results: Iterable[Result], facts: Facts, backends: Mapping[str, Sequence[str]], observed: Observed
) -> list[str]:
    """Return the causes that covered something in these very cases under equal facts, and cover nothing in any of them now."""
    before: dict[str, int] = {}
    now: set[str] = set()
    for result in results:
        if result.verdict not in RAN:
            continue
        now |= {finding.deviation for finding in result.findings if finding.deviation}
        if observation := _before(result.case, facts, backends.get(result.case, ()), observed):
            for cause, count in observation.elements.items():
                before[cause] = before.get(cause, 0) + count
    return [
        f"{cause} covers nothing any more, where it covered {number_of(count, 'element')}"
        for cause, count in sorted(before.items())
        if cause not in now
    ]


def evidence(observed: Observed) -> dict[str, tuple[int, float]]:
    """Return for each cause how many elements it explained in all runs recorded, and the largest share of its bound used."""
    proof: dict[str, tuple[int, float]] = {}
    for machine in observed.machines:
        for observation in machine.cases.values():
            for cause, count in observation.elements.items():
                elements, used = proof.get(cause, (0, 0.0))
                proof[cause] = (elements + count, max(used, observation.used.get(cause, 0.0)))
    return proof


def _before(case: str, facts: Facts, backends: Sequence[str], observed: Observed) -> ObservedCase | None:
    lasting_facts = _lasting({backend: facts[backend] for backend in backends if backend in facts})
    if not backends or len(lasting_facts) < len(set(backends)):
        return None
    for machine in reversed(observed.machines):
        if case in machine.cases and all(
            machine.facts.get(backend) == lasting_facts[backend] for backend in lasting_facts
        ):
            return machine.cases[case]
    return None


def _observation(result: Result) -> ObservedCase:
    elements: dict[str, int] = {}
    used: dict[str, float] = {}
    for finding in result.findings:
        if finding.deviation:
            elements[finding.deviation] = elements.get(finding.deviation, 0) + finding.count
            if finding.used:
                used[finding.deviation] = max(used.get(finding.deviation, 0.0), float(f"{finding.used:.3g}"))
    classes = tuple(sorted({finding.class_ for finding in result.findings}))
    return ObservedCase(classes=classes, elements=dict(sorted(elements.items())), used=dict(sorted(used.items())))


def _lasting(facts: Mapping[str, Mapping[str, str]]) -> Facts:
    return {
        backend: {name: value for name, value in sorted(words.items()) if name not in PASSING}
        for backend, words in sorted(facts.items())
        if words
    }


def _json(content: Any) -> str:
    return msgspec.json.encode(content).decode()
