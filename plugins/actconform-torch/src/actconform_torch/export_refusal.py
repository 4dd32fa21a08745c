"""What torch.onnx.export says where it fails, as one line that people can act on."""

from __future__ import annotations

import re
from importlib.metadata import version

from actconform import Unavailable, Unsupported

UPGRADE = "pip install --upgrade onnxscript"
# Colours, the class of a wrapped error, objects' addresses, where to ask for support, values of the trace.
_NOISE = re.compile(
    r"\x1b\[[0-9;]*m|<class '[^']*'>: | object at 0x[0-9a-f]+|\.? Please feel free to request support.*|  \[Caused by .*"
)


def refusal_of_export(error: Exception) -> Exception:
    """Return `Unsupported` in the words of the first cause; what is short of memory stays what it is, what is missing is `Unavailable`."""
    if isinstance(error, MemoryError):
        return error
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, ImportError):  # torch wants a part of onnxscript that an old release has not
        return Unavailable(f"torch {version('torch')} and what it exports with do not fit: {error}: {UPGRADE}")
    lines = [line.strip() for line in _NOISE.sub("", str(error)).splitlines() if line.strip()]
    reason = lines[0] if lines else ""
    if reason.endswith(":"):  # a heading: the first point below it says what
        reason = " ".join([reason, *lines[1:2]])
    return Unsupported(f"{type(error).__name__}: {reason}")
