"""`actconform golden`: prove, write and compare the stored truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.config import UsageError, near
from actconform.golden.diff import diff
from actconform.golden.store import golden_dir, read_manifest
from actconform.golden.verify import verify_all, verify_subjects, verify_tables
from actconform.plugins import load_plugins

if TYPE_CHECKING:
    from actconform.types import Kernel

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
    known = load_plugins().kernels
    kernels = _kernels(subjects, known)
    problems = verify_all(folder, manifest, kernels, known)
    if not fast:
        minted = [kernel for kernel in kernels if kernel.name in manifest.subjects]
        try:
            problems += [problem for kernel in minted for problem in verify_tables(manifest, kernel)]
        except ImportError as error:
            raise UsageError(f"{error}; or leave out the 16-bit tables with --fast") from error
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(f"{len(problems)} problems in {folder}")
        return 1
    worst = verify_subjects(folder, manifest, kernels)
    name = max(worst, key=worst.__getitem__)
    count = sum(len(aspects) for kernel in kernels for aspects in manifest.subjects[kernel.name].tables.values())
    tables = "" if fast else f", {count} tables of 65,536 patterns"
    click.echo(
        f"{len(worst)} kernels, {len(manifest.files)} files{tables}: verified;"
        f" worst formula error {worst[name]:.0f} ULP of binary64 ({name})"
    )
    return 0


@command.command("mint")
@click.argument("subjects", nargs=-1)
@FOLDER
def mint(subjects: tuple[str, ...], folder: Path | None) -> int:
    """Write the goldens of SUBJECTS (default: all) from exact arithmetic. Needs python-flint."""
    from actconform.golden.mint import mint as write

    folder = folder or golden_dir()
    try:
        kernels = _kernels(subjects, load_plugins().kernels)
        manifest = write(kernels, folder, lambda name: click.echo(f"minted {name}"))
    except ImportError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{folder}: goldens cannot be written there: {error.strerror}") from error
    click.echo(f"{len(manifest.files)} files of {len(manifest.subjects)} subjects in {folder}")
    return 0


@command.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def compare(old: Path, new: Path) -> int:
    """Show how far the goldens moved between two folders, in ULP; exit code 1 when they did."""
    lines = diff(old, new)
    for line in lines:
        click.echo(line)
    click.echo("no difference" if not lines else f"{len(lines)} differences")
    return 1 if lines else 0


def _kernels(names: tuple[str, ...], known: dict[str, Kernel]) -> list[Kernel]:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown kernel {name!r}{near(name, sorted(known))}")
    return [known[name] for name in names] if names else list(known.values())
