"""The reference of the command line, written from the commands themselves where docs/commands.md is read."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

from actconform.cli import GROUPS, _cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

PAGE = "docs/commands"


def setup(app: Sphinx) -> dict[str, bool]:
    """Have Sphinx add the commands to their page."""
    app.connect("source-read", _add_commands)
    return {"parallel_read_safe": True}


def _add_commands(_: Sphinx, page: str, source: list[str]) -> None:
    if page == PAGE:
        source[0] += "\n".join(reference())


def reference() -> Iterator[str]:
    """Return the lines of the reference in Markdown: a part for each group of verbs, in it one for each command."""
    context = click.Context(_cli, info_name="actconform")
    for group, verbs in GROUPS.items():
        yield f"\n## {group}\n"
        for verb in verbs:
            command = _cli.get_command(context, verb)
            assert command is not None
            yield from _command(command, click.Context(command, context, verb), level=3)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"\n{'#' * level} {context.command_path}\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield markdown(command.help or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            yield from _command(part, click.Context(part, context, name), level + 1)
        return
    if records := [record for option in command.params if (record := option.get_help_record(context))]:
        yield "\n| option | means |\n|---|---|"
        for names, meaning in records:
            cell = names.replace("|", "\\|")
            yield f"| `{cell}` | {markdown(meaning)} |"
    if command.epilog:
        yield "\n" + command.epilog.removeprefix("\b\nExamples:\n").replace("  actconform", "    actconform")


def markdown(text: str) -> str:
    """Return plain text as Markdown: what stands between backticks as it is, and signs of Markdown elsewhere escaped."""
    paragraphs = inspect.cleandoc(text.replace("\b\n", ""))
    parts = re.split(r"(`[^`]*`)", paragraphs)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>|\[\]\\{}$])", r"\\\1", part) for part in parts)
