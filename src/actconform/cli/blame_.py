"""`actconform blame`: which package brings the new findings of a report."""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from actconform.cli import announced
from actconform.errors import NoEnvironmentError, UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.across_runs.bisect_packages import (
    ENVIRONMENT,
    Answer,
    Bump,
    bisect,
    bumps,
    own_packages,
    targets,
)
from actconform.report.across_runs.changed_facts import said
from actconform.report.across_runs.diff import compare_reports
from actconform.report.read import read_report
from actconform.run.scheduler import plan_of, run
from actconform.run.select import Selection, all_cases, asked_for
from actconform.say import say
from actconform.settings import BackendConfig, Config, read_config
from actconform.types.json import finite
from actconform.workers.from_settings import configured, with_environments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.run.scheduler import Plan
    from actconform.types import Case, Result
    from actconform.types.report import Facts, Report

CASES_SHOWN = 12
LONGEST = 120
UNKNOWN = "its case is not known here: no plugin or [backends.NAME] gives its subject or route"


class _Blamed(NamedTuple):
    """What came of it; `others` are changed facts that are no packages, in words."""

    answers: list[Answer]
    packages: list[Bump]
    others: list[str]


@click.command("blame")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings (default: ./actconform.toml).")
@click.option(
    "--distribution", multiple=True, metavar="FACT=NAME", help="What pip calls the package that a fact names."
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(old: Path, new: Path, config_path: Path | None, distribution: tuple[str, ...], as_json: bool) -> int:
    """Run the cases with new findings of two reports again, one package changed at a time, and name the packages that bring them.

    Exit code 0: all named, or there is nothing new; 1: not all; 2: wrong usage, or one is no report.
    """
    before, after = read_report(old), read_report(new)
    named = _named(distribution)
    blamed = _blame(before, after, read_config(config_path), named)
    if as_json:
        told = {"answers": blamed.answers, "packages": blamed.packages, "not tried": blamed.others}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(finite(told)), indent=1) + b"\n")
    else:
        for line in _lines(blamed):
            say(line)
    return 0 if all(answer.packages for answer in blamed.answers) else 1


def _blame(before: Report, after: Report, config: Config, named: Mapping[str, str]) -> _Blamed:
    wanted = targets(compare_reports(before, after))
    found, others = bumps(before.facts, after.facts, partial(_distribution, named, (before.facts, after.facts)))
    left = [f"{_short(said(change))}: {'no package' if change.backend else 'not of a backend'}" for change in others]
    if not wanted:
        return _Blamed([], found, left)
    catalog = configured(announced(load_plugins()), config)
    ids = {target.case for target in wanted}
    known = all_cases(catalog, full=True, asked=asked_for(catalog, Selection(patterns=sorted(ids))))
    cases = {case.id: case for case in known if case.id in ids}
    plan = plan_of(catalog, config)

    def relevant(case: str) -> frozenset[Bump]:
        workers = catalog.workers([cases[case]])
        return frozenset(one for one in found if workers & set(one.backends))

    def again(some: Sequence[str], new: frozenset[Bump]) -> dict[str, Result]:
        return _rerun(plan, [cases[one] for one in some], found, new)

    answers = bisect([target for target in wanted if target.case in cases], relevant, again)
    answers += [Answer(target, (), UNKNOWN) for target in wanted if target.case not in cases]
    return _Blamed(answers, found, left)


def _rerun(plan: Plan, cases: Sequence[Case], changed: Sequence[Bump], new: frozenset[Bump]) -> dict[str, Result]:
    """Return the results by case, with the packages of `new` as they are now and the others as they were."""
    backends = dict(plan.config.backends)
    workers = plan.catalog.workers(cases)
    touched = [one for one in changed if workers & set(one.backends)]
    for name in workers:
        mine = [one for one in touched if name in one.backends]
        settings = backends.get(name, BackendConfig())
        replaced = {canonicalize_name(one.distribution) for one in mine}
        kept = [text for text in settings.requirements if canonicalize_name(Requirement(text).name) not in replaced]
        wanted = [one.requirement(new=one in new) for one in mine]
        wanted = [text for text in wanted if settings.python or not _is_here(text)]
        backends[name] = msgspec.structs.replace(settings, requirements=(*kept, *wanted))
    tell = partial(say, err=True)
    versions = ", ".join(f"{one.fact} {one.after if one in new else one.before}" for one in touched)
    tell(f"{len(cases)} case{'s' * (len(cases) > 1)} with {versions}")
    config = with_environments(msgspec.structs.replace(plan.config, backends=backends), workers, tell)
    if config.unavailable:
        raise NoEnvironmentError("; ".join(config.unavailable.values()))
    results: dict[str, Result] = {}
    run(
        msgspec.structs.replace(plan, cases=cases, config=config),
        lambda *_: None,
        lambda result: results.update({result.case: result}),
    )
    return results


def _is_here(requirement: str) -> bool:
    """Tell whether the driver has that release: its processes then need no environment."""
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _named(given: Sequence[str]) -> dict[str, str]:
    named = dict(one.partition("=")[::2] for one in given)
    for fact, name in named.items():
        try:
            plain = Requirement(name).name == name
        except InvalidRequirement:
            plain = False
        if not (fact and plain):
            raise UsageError(f"--distribution {fact}={name}: wanted FACT=NAME, as in onnxruntime=onnxruntime-gpu")
    return named


def _distribution(named: Mapping[str, str], reports: Sequence[Facts], fact: str) -> str | None:
    """Return what pip calls the package that a fact names: as told, as an environment had it, or as the driver has it."""
    if fact in named:
        return named[fact]
    for facts in (one for report in reports for one in report.backends.values()):
        for name, version in own_packages(facts.get(ENVIRONMENT, "")).items():
            if name == fact or (version == facts.get(fact) and canonicalize_name(name).startswith(fact)):
                return name
    try:
        return metadata.distribution(fact).name
    except (metadata.PackageNotFoundError, ValueError):
        return next(iter(_providers().get(fact, ())), None)


@cache
def _providers() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _lines(blamed: _Blamed) -> list[str]:
    if not blamed.answers:
        return ["nothing to blame: no finding is new and unregistered, and no answer has stopped coming"]
    lines = [f"packages that changed: {', '.join(one.said for one in blamed.packages) or 'none'}"]
    groups: dict[tuple[tuple[Bump, ...], str], list[Answer]] = {}
    for answer in blamed.answers:
        one = len(answer.packages) == 1  # alone or by its absence, it is the one
        groups.setdefault((answer.packages, "" if one else answer.why), []).append(answer)
    for (by, why), answers in groups.items():
        count = f"{len(answers):,} of {len(blamed.answers):,} new"
        bring = "brings" if len(by) == 1 else "bring"
        how = {"alone": ", each alone", "together": ", together"}.get(why, "")
        whole = f"{' and '.join(one.said for one in by)} {bring} {count}{how}:"
        lines += ["", whole if by else f"not blamed, {count}: {why}:"]
        by_case: dict[str, dict[str, None]] = {}
        for answer in answers:
            by_case.setdefault(answer.target.case, {})[answer.target.kind] = None
        lines += [f"  {case}   {', '.join(kinds)}" for case, kinds in list(by_case.items())[:CASES_SHOWN]]
        lines += [f"  … and {len(by_case) - CASES_SHOWN:,} more cases"] if len(by_case) > CASES_SHOWN else []
    failed = dict.fromkeys(other for answer in blamed.answers for other in answer.not_tried)
    return [*lines, "", *(f"not tried: {other}" for other in (*failed, *blamed.others))]
