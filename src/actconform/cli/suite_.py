"""`actconform suite`: operators by the hundred through every ONNX runtime."""

from __future__ import annotations

import click

from actconform.cli._suite_drawn import drawn_command
from actconform.cli._suite_onnx import onnx_command


@click.group("suite")
def command() -> None:
    """Hold runtimes against single operators of the standard."""


command.add_command(onnx_command)
command.add_command(drawn_command)
