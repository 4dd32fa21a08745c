"""`actconform blame`: which package brings the new findings of a report."""

from __future__ import annotations

from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from actconform.cli import _options, announced
from actconform.cli._blame_model import ModelOptions, blame_on_model, print_json
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
    with_versions,
)
from actconform.report.across_runs.changed_facts import change_in_words
from actconform.report.across_runs.diff import compare_reports
from actconform.report.read import read_report
from actconform.run.scheduler import plan_of, run
from actconform.run.select import Selection, all_cases, asked_for
from actconform.say import say
from actconform.settings import BackendConfig, Config, read_config
from actconform.text import number_of
from actconform.workers.from_settings import configured, with_environments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.run.scheduler import Plan
    from actconform.types import Case, Result
    from actconform.types.report import Facts, Report

CASES_SHOWN = 12
LONGEST = 120
UNKNOWN = "its case does not exist here: no plugin or [backends.NAME] gives its subject or route"


class _Blamed(NamedTuple):
    """The answers and the changed packages; `other_facts` are changed facts that are no packages, in words."""

    answers: list[Answer]
    packages: list[Bump]
    other_facts: list[str]


@click.command("blame")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_options.config
@click.option(
    "--distribution", multiple=True, metavar="FACT=NAME", help="What pip calls the package that a fact names."
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="An ONNX file; OLD and NEW are then lock files, not reports."
)
@click.option("--runtime", help="With --model: what runs it (default: ort-cpu).")
@click.option("--inputs", type=click.Path(path_type=Path), help="With --model: its inputs, as check takes them.")
@click.option("--range", "ranges", multiple=True, help="With --model: values of an input that is drawn, x=0:255.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="With --model: of inputs that are drawn (default: 0).")
def command(
    old: Path,
    new: Path,
    config_path: Path | None,
    distribution: tuple[str, ...],
    as_json: bool,
    model: Path | None,
    **model_options: Any,
) -> int:
    """Run what is new between two reports again, one package changed at a time, and name the packages that bring it.

    OLD and NEW are reports: the cases with new findings run. With --model they are lock files (requirements.txt, uv.lock,
    poetry.lock, pylock.toml), and the model runs: which package brings outputs that rounding does not explain.

    Exit code 0: all named, or there is nothing new; 1: not all; 2: wrong usage, or one is no report or no lock file.
    """
    if model is not None:
        if distribution:
            raise UsageError("--distribution names the packages of reports; with --model the lock files name them")
        wanted = ModelOptions(model=model, **model_options)
        return blame_on_model(old, new, wanted, read_config(config_path), as_json=as_json)
    if any(value not in (None, ()) for value in model_options.values()):
        raise UsageError("--runtime, --inputs, --range and --seed are for a model: name it with --model")
    before, after = read_report(old), read_report(new)
    distributions = _distributions(distribution)
    blamed = _blame(before, after, read_config(config_path), distributions)
    if as_json:
        print_json({"answers": blamed.answers, "packages": blamed.packages, "not tried": blamed.other_facts})
    else:
        for line in _lines(blamed):
            say(line)
    return 0 if all(answer.packages for answer in blamed.answers) else 1


def _blame(before: Report, after: Report, config: Config, distributions: Mapping[str, str]) -> _Blamed:
    wanted = targets(compare_reports(before, after))
    packages, other_changes = bumps(
        before.facts, after.facts, partial(_distribution, distributions, (before.facts, after.facts))
    )
    other_facts = [
        f"{_short(change_in_words(change))}: {'no package' if change.backend else 'not of a backend'}"
        for change in other_changes
    ]
    if not wanted:
        return _Blamed([], packages, other_facts)
    catalog = configured(announced(load_plugins()), config)
    ids = {target.case for target in wanted}
    all_known = all_cases(catalog, full=True, selected=asked_for(catalog, Selection(patterns=sorted(ids))))
    cases = {case.id: case for case in all_known if case.id in ids}
    plan = plan_of(catalog, config)

    def relevant(case: str) -> frozenset[Bump]:
        workers = catalog.workers([cases[case]])
        return frozenset(package for package in packages if workers & set(package.backends))

    def again(case_ids: Sequence[str], new: frozenset[Bump]) -> dict[str, Result]:
        return _rerun(plan, [cases[case_id] for case_id in case_ids], packages, new)

    answers = bisect([target for target in wanted if target.case in cases], relevant, again)
    answers += [Answer(target, (), UNKNOWN) for target in wanted if target.case not in cases]
    return _Blamed(answers, packages, other_facts)


def _rerun(plan: Plan, cases: Sequence[Case], changed: Sequence[Bump], new: frozenset[Bump]) -> dict[str, Result]:
    """Return the results by case, with the packages of `new` in their new versions and all others in their old ones."""
    backends = dict(plan.config.backends)
    workers = plan.catalog.workers(cases)
    touched = [package for package in changed if workers & set(package.backends)]
    for name in workers:
        own_packages = [package for package in touched if name in package.backends]
        backends[name] = with_versions(backends.get(name, BackendConfig()), own_packages, new)
    report_progress = partial(say, err=True)
    versions = ", ".join(f"{package.fact} {package.after if package in new else package.before}" for package in touched)
    report_progress(f"{number_of(len(cases), 'case')} with {versions}")
    config = with_environments(msgspec.structs.replace(plan.config, backends=backends), workers, report_progress)
    if config.unavailable:
        raise NoEnvironmentError("; ".join(config.unavailable.values()))
    results: dict[str, Result] = {}
    run(
        msgspec.structs.replace(plan, cases=cases, config=config),
        lambda *_: None,
        lambda result: results.update({result.case: result}),
    )
    return results


def _distributions(options: Sequence[str]) -> dict[str, str]:
    distributions = dict(option.partition("=")[::2] for option in options)
    for fact, name in distributions.items():
        try:
            plain = Requirement(name).name == name
        except InvalidRequirement:
            plain = False
        if not (fact and plain):
            raise UsageError(f"--distribution {fact}={name}: wanted FACT=NAME, as in onnxruntime=onnxruntime-gpu")
    return distributions


def _distribution(distributions: Mapping[str, str], reports: Sequence[Facts], fact: str) -> str | None:
    """Return pip's name of the package that a fact names: as the options, an environment or the driver's packages have it."""
    if fact in distributions:
        return distributions[fact]
    for facts in (backend_facts for report in reports for backend_facts in report.backends.values()):
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
        return ["nothing to blame: no finding is new and unregistered, and every case that ran still runs"]
    lines = [f"packages that changed: {', '.join(package.words for package in blamed.packages) or 'none'}"]
    groups: dict[tuple[tuple[Bump, ...], str], list[Answer]] = {}
    for answer in blamed.answers:
        single = len(answer.packages) == 1  # new alone or old alone, it is the cause
        groups.setdefault((answer.packages, "" if single else answer.reason), []).append(answer)
    for (by, reason), answers in groups.items():
        count = f"{len(answers):,} of {len(blamed.answers):,} new"
        bring = "brings" if len(by) == 1 else "bring"
        how = {"alone": ", each alone", "together": ", together"}.get(reason, "")
        heading = f"{' and '.join(package.words for package in by)} {bring} {count}{how}:"
        lines += ["", heading if by else f"not blamed, {count}: {reason}:"]
        by_case: dict[str, dict[str, None]] = {}
        for answer in answers:
            by_case.setdefault(answer.target.case, {})[answer.target.kind] = None
        lines += [f"  {case}   {', '.join(kinds)}" for case, kinds in list(by_case.items())[:CASES_SHOWN]]
        lines += [f"  … and {number_of(len(by_case) - CASES_SHOWN, 'more case')}"] if len(by_case) > CASES_SHOWN else []
    failed = dict.fromkeys(text for answer in blamed.answers for text in answer.not_tried)
    return [*lines, "", *(f"not tried: {text}" for text in (*failed, *blamed.other_facts))]
