"""Finds the package that brings a new finding: the affected cases run again, with one package changed at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from actconform.errors import NoEnvironmentError
from actconform.report.across_runs.changed_facts import changed
from actconform.types import BAD, RAN, Finding, Verdict
from actconform.workers.environments import is_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from actconform.report.across_runs.diff import Difference
    from actconform.settings import BackendConfig
    from actconform.types import Result
    from actconform.types.report import Change, Facts

    Rerun = Callable[[Sequence[str], frozenset["Bump"]], Mapping[str, Result]]

ENVIRONMENT = "environment"  # the fact
NO_PACKAGE = "no package changed on its route"
NOT_AGAIN = "does not appear with the new packages here: something else brings it, such as the machine"
BEFORE_TOO = "appears with the old packages too, here: something else has changed"
NO_PACKAGE_ALONE = "no package brings it alone, and reverting any one package alone does not remove it"


class Bump(msgspec.Struct, frozen=True, order=True):
    """A package with a changed version in the processes of some backends; `fact` is its name in reports, `distribution` in pip."""

    fact: str
    before: str
    after: str
    distribution: str
    backends: tuple[str, ...]

    @property
    def words(self) -> str:
        """The change in words: "onnxruntime 1.26.0 -> 1.27.0"."""
        return f"{self.fact} {self.before} -> {self.after}"

    def requirement(self, *, new: bool) -> str:
        """Return what pip takes; a local version ("2.13.0+cpu") is on no index, the release is."""
        return f"{self.distribution}=={Version(self.after if new else self.before).public}"


class Target(msgspec.Struct, frozen=True):
    """A change of a case to explain: a new finding, or the verdict of a case that no longer runs."""

    case: str
    finding: Finding | None = None
    verdict: Verdict | None = None

    @property
    def kind(self) -> str:
        """The class of the finding, or the verdict."""
        return self.finding.class_ if self.finding else str(self.verdict)

    def shown(self, result: Result | None) -> bool:
        """Return whether a result has it."""
        if result is None:
            return False
        if self.finding is None:
            return result.verdict is self.verdict
        return any(self.finding.same(finding) for finding in result.findings)


class Answer(msgspec.Struct, frozen=True):
    """The packages that bring a target, each alone or all together, as `reason` says; or none, and the reason for that.

    `not_tried` are the combinations of versions that could not be installed.
    """

    target: Target
    packages: tuple[Bump, ...]
    reason: str = msgspec.field(default="", name="why")  # the key in `blame --json`
    not_tried: tuple[str, ...] = ()


def targets(difference: Difference) -> list[Target]:
    """Return the targets of a difference: new findings that are not registered, and cases that no longer run.

    Where there are none, the new findings that are registered.
    """
    registered = [Target(new.case, finding=new.finding) for new in difference.new if new.finding.deviation is not None]
    unregistered = [Target(new.case, finding=new.finding) for new in difference.new if new.finding.deviation is None]
    broken = [
        Target(turned.case, verdict=turned.after)
        for turned in difference.verdicts
        if turned.before in RAN and turned.after in BAD and turned.after not in RAN
    ]
    return unregistered + broken or registered


def bumps(before: Facts, after: Facts, distribution: Callable[[str], str | None]) -> tuple[list[Bump], list[Change]]:
    """Return the packages whose version changed, and the other facts that changed.

    A fact is a package where `distribution` gives pip's name of it, and both values are versions.
    """
    backends: dict[tuple[str, str, str], dict[str, str]] = {}  # in each the fact that names the distribution
    other_changes: list[Change] = []
    for change in changed(_unpacked(before), _unpacked(after)):
        named = distribution(change.fact) if change.backend else None
        if named and _is_version(change.before) and _is_version(change.after):
            where = backends.setdefault((named, change.before, change.after), {})
            where.setdefault(change.backend, change.fact)
        else:
            other_changes.append(change)
    packages = [Bump(min(where.values()), *key[1:], key[0], tuple(where)) for key, where in backends.items()]
    return sorted(packages), other_changes


def own_packages(environment: str) -> dict[str, str]:
    """Return the versions by name of the fact "environment" of a process: its environment's own packages."""
    pairs = [package.partition(" ") for package in environment.split(", ")]
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


def with_versions(settings: BackendConfig, packages: Collection[Bump], new: Collection[Bump]) -> BackendConfig:
    """Return the settings of a backend with those of `packages` that are in `new` in their new versions, the others in their old ones.

    What the driver has in that version is not required.
    """
    replaced = {canonicalize_name(package.distribution) for package in packages}
    unchanged = [text for text in settings.requirements if canonicalize_name(Requirement(text).name) not in replaced]
    wanted = [package.requirement(new=package in new) for package in packages]
    wanted = [text for text in wanted if settings.python or not is_installed(text)]
    return msgspec.structs.replace(settings, requirements=(*unchanged, *wanted))


def bisect(wanted: Iterable[Target], relevant: Callable[[str], frozenset[Bump]], rerun: Rerun) -> list[Answer]:
    """Return an answer for each target.

    `relevant` gives the packages that a case's processes have, `rerun` the results of cases with these packages new and all others
    old; it may raise NoEnvironmentError. First all are new, then all old, which must show the target and not show it. Then each
    package alone is new, and where none brings it, each alone is old.
    """
    groups: dict[frozenset[Bump], list[Target]] = {}
    for target in wanted:
        groups.setdefault(relevant(target.case), []).append(target)
    return [answer for changed_, group in groups.items() for answer in _answers(group, changed_, rerun)]


def _answers(group: list[Target], packages: frozenset[Bump], rerun: Rerun) -> list[Answer]:
    if not packages:
        return [Answer(target, (), NO_PACKAGE) for target in group]
    try:
        again = _showing(group, packages, rerun)
        before = _showing(again, frozenset(), rerun)
    except NoEnvironmentError as error:
        return [Answer(target, (), str(error)) for target in group]
    answers = [Answer(target, (), NOT_AGAIN) for target in group if target not in again]
    answers += [Answer(target, (), BEFORE_TOO) for target in before]
    left = [target for target in again if target not in before]
    if len(packages) == 1:
        return answers + [Answer(target, tuple(packages)) for target in left]
    return answers + _of_several(left, packages, rerun)


def _of_several(left: list[Target], packages: frozenset[Bump], rerun: Rerun) -> list[Answer]:
    tried: dict[frozenset[Bump], list[Target]] = {}
    failed: dict[frozenset[Bump], str] = {}

    def shown(new: frozenset[Bump], group: list[Target]) -> Collection[Target]:
        if new not in tried and new not in failed:
            try:
                tried[new] = _showing(group, new, rerun)
            except NoEnvironmentError as error:
                failed[new] = f"{', '.join(package.words for package in sorted(new))} alone: {error}"
        return tried.get(new, ())

    alone = {package: shown(frozenset([package]), left) for package in sorted(packages)}
    rest = [target for target in left if not any(target in by for by in alone.values())]
    without = {package: shown(packages - {package}, rest) for package in sorted(packages)}
    answers = []
    for target in left:
        bring = tuple(package for package, by in alone.items() if target in by)
        needed = tuple(package for package, by in without.items() if target not in by and packages - {package} in tried)
        reason = "alone" if bring else "together" if needed else NO_PACKAGE_ALONE
        answers.append(Answer(target, bring or needed, reason, tuple(failed.values())))
    return answers


def _showing(group: Collection[Target], new: frozenset[Bump], rerun: Rerun) -> list[Target]:
    if not group:
        return []
    results = rerun(list(dict.fromkeys(target.case for target in group)), new)
    return [target for target in group if target.shown(results.get(target.case))]


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
