"""Which package brings what is new in a report: the affected cases run again, with one package changed at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from packaging.version import InvalidVersion, Version

from actconform.errors import NoEnvironmentError
from actconform.report.across_runs.changed_facts import changed
from actconform.types import BAD, RAN, Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from actconform.report.across_runs.diff import Difference
    from actconform.types import Result
    from actconform.types.report import Change, Facts

    Rerun = Callable[[Sequence[str], frozenset["Bump"]], Mapping[str, Result]]

ENVIRONMENT = "environment"  # the fact
NO_PACKAGE = "no package changed on its route"
NOT_AGAIN = "is not there again with the new packages here: something else brings it, such as the machine"
BEFORE_TOO = "is there with the old packages too, here: something else has changed"
NO_ONE = "no package brings it alone, and none has it gone when it alone is as before"


class Bump(msgspec.Struct, frozen=True, order=True):
    """A package that has another version now, in the processes of some backends; `fact` names it in reports, `distribution` to pip."""

    fact: str
    before: str
    after: str
    distribution: str
    backends: tuple[str, ...]

    @property
    def said(self) -> str:
        """The change in words: "onnxruntime 1.26.0 -> 1.27.0"."""
        return f"{self.fact} {self.before} -> {self.after}"

    def requirement(self, *, new: bool) -> str:
        """Return what pip takes; a local version ("2.13.0+cpu") is on no index, the release is."""
        return f"{self.distribution}=={Version(self.after if new else self.before).public}"


class Target(msgspec.Struct, frozen=True):
    """What is new in a case: a finding, or a verdict that is no answer."""

    case: str
    finding: Finding | None = None
    verdict: Verdict | None = None

    @property
    def kind(self) -> str:
        """The class of the finding, or the verdict."""
        return self.finding.class_ if self.finding else str(self.verdict)

    def shown(self, result: Result | None) -> bool:
        """Tell whether a result has it."""
        if result is None:
            return False
        if self.finding is None:
            return result.verdict is self.verdict
        return any(self.finding.same(other) for other in result.findings)


class Answer(msgspec.Struct, frozen=True):
    """The packages that bring a target, each alone or all together, as `why` says; none, and why there is no answer.

    `not_tried` says which trials could not be had.
    """

    target: Target
    packages: tuple[Bump, ...]
    why: str = ""
    not_tried: tuple[str, ...] = ()


def targets(difference: Difference) -> list[Target]:
    """Return what is to be explained of a difference: new findings that are not registered, and answers that no longer come.

    Where there are none, the new findings that are registered.
    """
    known = [Target(new.case, finding=new.finding) for new in difference.new if new.finding.deviation is not None]
    found = [Target(new.case, finding=new.finding) for new in difference.new if new.finding.deviation is None]
    broken = [
        Target(turned.case, verdict=turned.after)
        for turned in difference.verdicts
        if turned.before in RAN and turned.after in BAD and turned.after not in RAN
    ]
    return found + broken or known


def bumps(before: Facts, after: Facts, distribution: Callable[[str], str | None]) -> tuple[list[Bump], list[Change]]:
    """Return the packages that have another version, and the other facts that changed.

    A fact is a package where `distribution` knows what pip calls it, and both values are versions.
    """
    backends: dict[tuple[str, str, str], dict[str, str]] = {}  # in each the fact that names the distribution
    others: list[Change] = []
    for change in changed(_unpacked(before), _unpacked(after)):
        named = distribution(change.fact) if change.backend else None
        if named and _is_version(change.before) and _is_version(change.after):
            where = backends.setdefault((named, change.before, change.after), {})
            where.setdefault(change.backend, change.fact)
        else:
            others.append(change)
    found = [Bump(min(where.values()), *key[1:], key[0], tuple(where)) for key, where in backends.items()]
    return sorted(found), others


def own_packages(environment: str) -> dict[str, str]:
    """Return the versions by name of the fact "environment" of a process: what its environment has itself."""
    pairs = [own.partition(" ") for own in environment.split(", ")]
    return {name: version for name, _, version in pairs if _is_version(version)}


def _unpacked(facts: Facts) -> Facts:
    """Return the facts with those of "environment" one by one."""
    backends = {
        name: {
            **own_packages(of.get(ENVIRONMENT, "")),
            **{fact: value for fact, value in of.items() if fact != ENVIRONMENT},
        }
        for name, of in facts.backends.items()
    }
    return msgspec.structs.replace(facts, backends=backends)


def bisect(wanted: Iterable[Target], relevant: Callable[[str], frozenset[Bump]], rerun: Rerun) -> list[Answer]:
    """Return an answer for each target.

    `relevant` gives the packages that a case's processes have, `rerun` the results of cases with these packages new and all others
    old; it may raise NoEnvironmentError. First all are new, then all old, which must show the target and not show it. Then each
    package alone is new, and where none brings it, each alone is old.
    """
    groups: dict[frozenset[Bump], list[Target]] = {}
    for target in wanted:
        groups.setdefault(relevant(target.case), []).append(target)
    return [answer for changed_, mine in groups.items() for answer in _answers(mine, changed_, rerun)]


def _answers(mine: list[Target], packages: frozenset[Bump], rerun: Rerun) -> list[Answer]:
    if not packages:
        return [Answer(target, (), NO_PACKAGE) for target in mine]
    try:
        again = _showing(mine, packages, rerun)
        before = _showing(again, frozenset(), rerun)
    except NoEnvironmentError as error:
        return [Answer(target, (), str(error)) for target in mine]
    answers = [Answer(target, (), NOT_AGAIN) for target in mine if target not in again]
    answers += [Answer(target, (), BEFORE_TOO) for target in before]
    left = [target for target in again if target not in before]
    if len(packages) == 1:
        return answers + [Answer(target, tuple(packages)) for target in left]
    return answers + _of_several(left, packages, rerun)


def _of_several(left: list[Target], packages: frozenset[Bump], rerun: Rerun) -> list[Answer]:
    tried: dict[frozenset[Bump], list[Target]] = {}
    failed: dict[frozenset[Bump], str] = {}

    def shown(new: frozenset[Bump], mine: list[Target]) -> Collection[Target]:
        if new not in tried and new not in failed:
            try:
                tried[new] = _showing(mine, new, rerun)
            except NoEnvironmentError as error:
                failed[new] = f"{', '.join(one.said for one in sorted(new))} alone: {error}"
        return tried.get(new, ())

    alone = {one: shown(frozenset([one]), left) for one in sorted(packages)}
    rest = [target for target in left if not any(target in by for by in alone.values())]
    without = {one: shown(packages - {one}, rest) for one in sorted(packages)}
    answers = []
    for target in left:
        bring = tuple(one for one, by in alone.items() if target in by)
        needed = tuple(one for one, by in without.items() if target not in by and packages - {one} in tried)
        why = "alone" if bring else "together" if needed else NO_ONE
        answers.append(Answer(target, bring or needed, why, tuple(failed.values())))
    return answers


def _showing(mine: Collection[Target], new: frozenset[Bump], rerun: Rerun) -> list[Target]:
    if not mine:
        return []
    results = rerun(list(dict.fromkeys(target.case for target in mine)), new)
    return [target for target in mine if target.shown(results.get(target.case))]


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
