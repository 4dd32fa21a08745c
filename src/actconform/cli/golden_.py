"""`actconform golden`: prove, write and compare the stored truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.config import UsageError
from actconform.golden.diff import diff
from actconform.golden.store import golden_dir, read_manifest
from actconform.golden.verify import verify_all, verify_subjects, verify_tables
from actconform.plugins import load_plugins
from actconform.say import say
from actconform.spelling import near
from actconform.types import Kernel

if TYPE_CHECKING:
    from actconform.model import Model

FOLDER = click.option("--folder", type=click.Path(path_type=Path), help="The goldens (default: those of the package).")


@click.group("golden")
def command() -> None:
    """Verify, mint or compare the stored goldens."""


@command.command("verify")
@click.argument("subjects", nargs=-1)
@FOLDER
@click.option("--fast", is_flag=True, help="Leave out the 16-bit tables, which need python-flint.")
def verify(subjects: tuple[str, ...], folder: Path | None, fast: bool) -> int:
    """Prove files against the manifest, inputs and formulas against the files, 16-bit tables against Arb."""
    folder = folder or golden_dir()
    manifest = read_manifest(folder)
    known = load_plugins().subjects
    chosen = _subjects(subjects, known)
    problems = verify_all(folder, manifest, chosen, known)
    if not fast:
        minted = [one for one in chosen if isinstance(one, Kernel) and one.name in manifest.subjects]
        try:
            problems += [problem for kernel in minted for problem in verify_tables(manifest, kernel)]
        except ImportError as error:
            raise UsageError(f"{error}; or leave out the 16-bit tables with --fast") from error
    for problem in problems:
        say(problem)
    if problems:
        say(f"{len(problems)} problems in {folder}")
        return 1
    worst = verify_subjects(folder, manifest, chosen)
    name = max(worst, key=worst.__getitem__)
    count = sum(len(aspects) for one in chosen for aspects in manifest.subjects[one.name].tables.values())
    tables = "" if fast else f", {count} tables of 65,536 patterns"
    models = sum(not isinstance(one, Kernel) for one in chosen)
    say(
        f"{len(worst) - models} kernels, {models} models, {len(manifest.files)} files{tables}: verified;"
        f" worst formula error {worst[name]:.0f} ULP of binary64 ({name})"
    )
    return 0


@command.command("mint")
@click.argument("subjects", nargs=-1)
@FOLDER
def mint(subjects: tuple[str, ...], folder: Path | None) -> int:
    """Write the goldens of SUBJECTS (default: all), kernels from exact arithmetic. Needs python-flint."""
    from actconform.golden.mint import mint as write

    folder = folder or golden_dir()
    try:
        chosen = _subjects(subjects, load_plugins().subjects)
        manifest = write(chosen, folder, lambda name: say(f"minted {name}"))
    except ImportError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{folder}: goldens cannot be written there: {error.strerror}") from error
    say(f"{len(manifest.files)} files of {len(manifest.subjects)} subjects in {folder}")
    return 0


@command.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def compare(old: Path, new: Path) -> int:
    """Show how far the goldens moved between two folders, in ULP; exit code 1 when they did."""
    lines = diff(old, new)
    for line in lines:
        say(line)
    say("no difference" if not lines else f"{len(lines)} differences")
    return 1 if lines else 0


def _subjects(names: tuple[str, ...], known: dict[str, Kernel | Model]) -> list[Kernel | Model]:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown kernel or model {name!r}{near(name, sorted(known))}")
    return [known[name] for name in names] if names else list(known.values())
