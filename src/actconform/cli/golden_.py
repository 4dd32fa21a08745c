"""`actconform golden`: verify, mint, compare and export the stored goldens."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.catalog.models.zoo import PUBLISHED
from actconform.cli import _completion, announced
from actconform.errors import Unsupported, UsageError, near
from actconform.plugin.loader import load_plugins
from actconform.say import say
from actconform.testdata.golden.diff import diff
from actconform.testdata.golden.store import collected, golden_dir, load, read_manifest
from actconform.testdata.golden.verify import by_folder, verify_folders, verify_subjects, verify_tables
from actconform.text import number_of
from actconform.types import Kernel
from actconform.types.model import Model
from actconform.types.training import Experiment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actconform.testdata.golden.store import Provable

FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), help="The goldens (default: those of the package and of plugins)."
)


@click.group("golden")
def command() -> None:
    """Verify, mint, compare or export the stored goldens."""


@command.command("verify")
@click.argument("subjects", nargs=-1, shell_complete=_completion.subjects)
@FOLDER
@click.option("--fast", is_flag=True, help="Leave out the 16-bit tables, which need python-flint.")
def verify(subjects: tuple[str, ...], folder: Path | None, fast: bool) -> int:
    """Prove files against the manifest, inputs and formulas against the files, 16-bit tables against Arb."""
    catalog = announced(load_plugins())
    chosen = _subjects(subjects, catalog.provable)
    package = folder or golden_dir()
    read_manifest(
        package
    )  # no folder of goldens is wrong usage here; a plugin's bad folder is listed among the problems
    plugin_goldens = {} if folder else catalog.goldens
    folders = by_folder(chosen, plugin_goldens, package)
    problems = verify_folders(folders, catalog.provable)
    if problems:
        return _problems(problems, folders)
    manifest = collected(package, plugin_goldens)
    if not fast:
        kernels = [subject for subject in chosen if isinstance(subject, Kernel)]
        try:
            problems += [problem for kernel in kernels for problem in verify_tables(manifest, kernel)]
        except ImportError as error:
            raise UsageError(f"{error}; or leave out the 16-bit tables with --fast") from error
    if problems:
        return _problems(problems, folders)
    worst = verify_subjects(package, manifest, chosen)
    name = max(worst, key=worst.__getitem__)
    count = sum(len(aspects) for subject in chosen for aspects in manifest.subjects[subject.name].tables.values())
    tables = "" if fast else f", {number_of(count, 'table')} of 65,536 patterns"
    kinds = Counter(type(subject) for subject in chosen)
    experiments = f" {number_of(kinds[Experiment], 'experiment')}," if kinds[Experiment] else ""
    say(
        f"{number_of(kinds[Kernel], 'kernel')}, {number_of(kinds[Model], 'model')},{experiments} {number_of(len(manifest.files), 'file')}{tables}: verified;"
        f" worst formula error {worst[name]:.0f} ULP of binary64 ({name})"
    )
    return 0


def _problems(problems: Sequence[str], folders: Iterable[Path]) -> int:
    for problem in problems:
        say(problem)
    say(f"{number_of(len(problems), 'problem')} in {', '.join(map(str, folders))}")
    return 1


@command.command("mint")
@click.argument("subjects", nargs=-1, shell_complete=_completion.subjects)
@FOLDER
def mint(subjects: tuple[str, ...], folder: Path | None) -> int:
    """Write the goldens of SUBJECTS (default: all), kernels from exact arithmetic. Needs python-flint.

    Those of a plugin go into the folder that its hook actconform_goldens names, where it has one, and are found there.
    """
    from actconform.testdata.golden.mint import mint as write

    catalog = announced(load_plugins())
    chosen = _subjects(subjects, catalog.provable)
    for place, place_subjects in by_folder(chosen, {} if folder else catalog.goldens, folder or golden_dir()).items():
        with _writing(place):
            manifest = write(place_subjects, place, lambda name: say(f"minted {name}"))
        say(f"{number_of(len(manifest.files), 'file')} of {number_of(len(manifest.subjects), 'subject')} in {place}")
    return 0


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Raise UsageError where goldens cannot be written to a folder, or python-flint is not installed."""
    try:
        yield
    except ImportError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{place}: goldens cannot be written there: {error.strerror}") from error


@command.command("add-hard")
@click.argument("journal", type=click.Path(path_type=Path))
@FOLDER
def add_hard(journal: Path, folder: Path | None) -> int:
    """Add to a kernel's golden the inputs of a sweep that are hardest to round, and those of its worst errors. Needs python-flint.

    JOURNAL is a file of `actconform sweep`. Points that the golden has are left; all its other bytes are kept, by later mints too.
    """
    from actconform.exhaustive.measure import SweptFunction
    from actconform.sweep.hard_inputs import hard_inputs
    from actconform.sweep.journal import definition_of, read_sweep
    from actconform.testdata.golden.mint import add_swept

    catalog = announced(load_plugins())
    sweep = read_sweep(journal)
    case = sweep.identity.case
    if case.subject not in catalog.kernels:
        raise UsageError(f"{journal}: is of kernel {case.subject!r}, and no kernel of that name is installed")
    kernel = catalog.kernels[case.subject]
    if sweep.identity.definition != definition_of(kernel):
        raise UsageError(f"{journal}: is of another definition of {kernel.name} than the installed one; sweep it again")
    try:
        x = hard_inputs(sweep, SweptFunction.of(kernel, case.aspect))
    except Unsupported as error:
        raise UsageError(f"{journal}: {error}") from error
    ((place, _),) = by_folder([kernel], {} if folder else catalog.goldens, folder or golden_dir()).items()
    with _writing(place):
        added = add_swept(kernel, x, place)
    say(
        f"{number_of(added, 'point')} added to the golden of {kernel.name} in {place}, {x.size - added} of {x.size} were there"
    )
    return 0


@command.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def compare(old: Path, new: Path) -> int:
    """Show how far the goldens moved between two folders, in ULP; exit code 1 when they did."""
    lines = diff(old, new)
    for line in lines:
        say(line)
    say("no difference" if not lines else number_of(len(lines), "difference"))
    return 1 if lines else 0


@command.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("subjects", nargs=-1, shell_complete=_completion.subjects)
@click.option("--format", "layout", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="The layout.")
def export(folder: Path, subjects: tuple[str, ...], layout: str) -> int:  # noqa: ARG001  there is one
    """Write SUBJECTS (default: all kernels, and all models but those of published size) to FOLDER as ONNX's standard test data.

    Each value and gradient in each dtype is a folder test_NAME with model.onnx, data sets of inputs and true outputs, and tolerances.
    """
    from actconform.run.onnx_test_data import export_test_data

    catalog = announced(load_plugins())
    chosen = _subjects(subjects, catalog.provable)
    if experiments := [subject.name for subject in chosen if isinstance(subject, Experiment)] if subjects else []:
        raise UsageError(f"{experiments[0]} is an experiment, and no graph of one call: name kernels and models")
    exported = [
        subject
        for subject in chosen
        if not isinstance(subject, Experiment) and (subjects or not subject.name.endswith(PUBLISHED))
    ]
    place = golden_dir()
    manifest = collected(place, catalog.goldens)
    try:
        written = export_test_data(
            exported, lambda name: load(place, manifest, name), folder, lambda case: say(case, err=True)
        )
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    count = sum(len(case.data_sets) for case in written.cases)
    say(f"{number_of(len(written.cases), 'case')} with {number_of(count, 'data set')} in {folder}")
    for case, reason in written.unsupported.items():
        say(f"not exported: {case}: {reason}")
    return 0


def _subjects(names: tuple[str, ...], all_subjects: dict[str, Provable]) -> list[Provable]:
    for name in names:
        if name not in all_subjects:
            raise UsageError(f"unknown kernel, model or experiment {name!r}{near(name, sorted(all_subjects))}")
    return [all_subjects[name] for name in names] if names else list(all_subjects.values())
