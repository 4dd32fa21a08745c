"""`actconform check-plugin`: the contract of an installed backend, clause by clause, and what to do."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.cli import _completion, announced
from actconform.contract.check import check_contract
from actconform.contract.evidence import Setting
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.terminal.console import open_console, plain
from actconform.say import say
from actconform.settings import read_config
from actconform.text import number_of, visible
from actconform.workers.from_settings import configured, surroundings, with_environments

if TYPE_CHECKING:
    from rich.console import Console

    from actconform.contract.check import Checked
    from actconform.types import Case

SHOWN = 5  # breaches of a clause, and reasons of refusals; --json has all
MARKS = {"ok": "[green]✓[/]", "broken": "[red]✗[/]", "not applicable": "·"}


@click.command("check-plugin")
@click.argument("name", shell_complete=_completion.backends)
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    metavar="GLOB",
    shell_complete=_completion.subjects,
    help="Only these kernels and models.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with every breach.")
def command(name: str, subjects: tuple[str, ...], as_json: bool) -> int:
    """Run every kernel and model on backend NAME, of a plugin or of the settings, and show which clauses of the contract it keeps.

    Exit code 0: it keeps all; 1: a clause is broken, or the backend is UNAVAILABLE here; 2: there is no such backend. Its
    numbers are not judged here, but by `actconform run --backend NAME`.
    """
    config = read_config()
    catalog = configured(announced(load_plugins()), config)
    config = with_environments(config, [name], partial(say, err=True))
    if name in config.unavailable:
        raise UsageError(config.unavailable[name])
    settings = config.backends.get(name)
    env, plugins = surroundings(name, config)
    setting = Setting(
        subjects=subjects or ("*",),
        python=settings.python if settings else None,
        env=env,
        threads=config.threads,
        timeout=config.timeout,
        plugins=plugins,
    )
    checked = check_contract(name, setting, catalog, _show_case)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        document = {"schema": 1, "kept": checked.conforms, **msgspec.to_builtins(checked)}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=1))
    else:
        _show(checked, open_console())
    return 0 if checked.conforms else 1


def _show_case(case: Case) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{visible(case.id):.100}", nl=False, err=True)


def _show(checked: Checked, console: Console) -> None:
    def show(text: str) -> None:
        console.print(text, soft_wrap=True)

    show(f"[bold]{plain(checked.backend)}[/]  {checked.kind}  {plain(checked.plugin)}")
    for fact, value in checked.facts.items():
        show(f"  {plain(fact)}: {plain(value)}")
    if checked.unavailable:
        show(f"[red]UNAVAILABLE[/]  {plain(checked.unavailable)}")
        return
    width = max(len(clause.name) for clause in checked.clauses)
    for clause in checked.clauses:
        show(f"{MARKS[clause.state]} {clause.name:<{width}}  {clause.state:<14}  {plain(clause.message)}")
        for breach in clause.broken[:SHOWN]:
            show(f"    {plain(breach)}")
        if len(clause.broken) > SHOWN:
            show(f"    and {len(clause.broken) - SHOWN:,} more, see --json")
        if clause.fix:
            show(f"    [bold]what to do:[/] {plain(clause.fix)}")
    refused = "; refused:" if checked.refused else ""
    show(f"{checked.answered:,} of {number_of(checked.cases, 'case')} answered in {checked.seconds:.0f} s{refused}")
    for reason, count in checked.refused[:SHOWN]:
        show(f"  {count:>5,} UNSUPPORTED  {plain(reason)}")
    if len(checked.refused) > SHOWN:
        show(f"  and {number_of(len(checked.refused) - SHOWN, 'more reason')}, see --json")
    show("[green]KEEPS THE CONTRACT[/]" if checked.conforms else "[red]BREAKS THE CONTRACT[/]")
