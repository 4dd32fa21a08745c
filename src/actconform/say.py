"""What commands print as text: whatever it is made of shows as just that."""

from __future__ import annotations

import click

from actconform.text import visible


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, on standard output, or on standard error."""
    click.echo(visible(text), err=err)
