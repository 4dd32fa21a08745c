"""Tells whether an exported model still computes what was trained, and if not, whose fault it is."""

from typing import TYPE_CHECKING, Any

from actconform import _renamed
from actconform._version import __version__
from actconform.errors import Unavailable, Unsupported
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend, Exporter, Library, Program, Reporter
from actconform.types import Artifact, Case, Convention, Kernel, Kink, Support
from actconform.types.fault import Fault
from actconform.types.model import Model
from actconform.types.report import Report

_renamed.install()

if TYPE_CHECKING:
    from actconform.types.cause import Register
    from actconform.verdict.causes.register import register_of

__all__ = [
    "Artifact",
    "Backend",
    "Case",
    "Convention",
    "Exporter",
    "Fault",
    "Kernel",
    "Kink",
    "Library",
    "Model",
    "Program",
    "Register",
    "Report",
    "Reporter",
    "Support",
    "Unavailable",
    "Unsupported",
    "__version__",
    "hookimpl",
    "register_of",
]


def __getattr__(name: str) -> Any:
    """Import what reads registers where it is asked for: it needs numpy and onnx, and a worker neither of them for this."""
    if name == "register_of":
        from actconform.verdict.causes.register import register_of

        return register_of
    if name == "Register":
        from actconform.types.cause import Register

        return Register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
