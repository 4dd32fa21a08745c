"""Options that several commands have in the same words."""

from __future__ import annotations

from pathlib import Path

import click

from actconform.cli import _completion

checked_runtimes = click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    shell_complete=_completion.runtimes,
    help="ort-cpu (default), openvino, ort-cpu@1.26 (repeatable).",
)
config = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="Settings (default: the nearest actconform.toml)."
)
drawing_seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is drawn."
)
call_timeout = click.option(
    "--timeout", type=click.FloatRange(min=1.0), help="Seconds that a call of a runtime may take."
)
worker_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=1.0),
    help="Seconds that a case may take, and a worker to start (at least 120).",
)
trust = click.option(
    "--trust", is_flag=True, help="Allow files that run code of their own: TorchScript, .keras with custom classes."
)
