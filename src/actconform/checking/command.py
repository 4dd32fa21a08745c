"""The command line that asks for a check, for a POSIX shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.checking.session import CheckRequest

# Options that are given as often as they have values, those of one value, and flags, by their field of a request.
REPEATED = {"against": "--against", "runtimes": "--runtime", "exporters": "--exporter", "ranges": "--range"}
SINGLE = {
    "inputs": "--inputs",
    "reference": "--reference",
    "samples": "--samples",
    "seed": "--seed",
    "dtype": "--dtype",
    "autocast": "--autocast",
    "data": "--data",
    "batch": "--batch",
    "metric": "--metric",
    "worst": "--worst",
    "max_memory": "--max-memory",
    "timeout": "--timeout",
    "config": "--config",
}
FLAGS = {"gradients": "--gradients", "train_mode": "--train-mode", "trust": "--trust"}


def check_command(request: CheckRequest, exporter: str = "") -> str:
    """Return the command line that makes a check again from the folder in which it was made; "" where something of it was in memory.

    Files are named as the request names them. With `exporter` the check is that of its graph alone. Where files are written, and how,
    is left out.
    """
    if request.in_memory:
        return ""
    request = request._replace(exporters=(exporter,) if exporter else request.exporters)
    source = f"./{request.source}" if request.source.startswith("-") else request.source  # a file: no option
    return shlex.join(["actconform", "check", source, *_options(request)])


def _options(request: CheckRequest) -> Iterator[str]:
    unused = {"seed"} if request.inputs is not None and not request.gradients else set()
    if request.data is None:
        unused.add("worst")
    for field, option in REPEATED.items():
        for value in getattr(request, field):
            yield from (option, value)
    for field, option in SINGLE.items():
        value = getattr(request, field)
        if value is not None and field not in unused:
            yield from (option, str(value))
    yield from (option for field, option in FLAGS.items() if getattr(request, field))
