"""Tells whether an exported model still computes what was trained, and if not, whose fault it is."""

from actconform.document import Report
from actconform.faults import Fault
from actconform.hookspecs import hookimpl
from actconform.interfaces import Backend, Exporter, Library, Program, Reporter, Unavailable, Unsupported
from actconform.model import Model
from actconform.types import Artifact, Case, Deviation, Kernel, Kink, Support

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Backend",
    "Case",
    "Deviation",
    "Exporter",
    "Fault",
    "Kernel",
    "Kink",
    "Library",
    "Model",
    "Program",
    "Report",
    "Reporter",
    "Support",
    "Unavailable",
    "Unsupported",
    "__version__",
    "hookimpl",
]
