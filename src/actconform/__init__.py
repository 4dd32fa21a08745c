"""actconform: does your exported model still compute what you trained, and if not, whose fault is it?"""

from actconform.hookspecs import hookimpl
from actconform.interfaces import Backend, Program, Unavailable, Unsupported
from actconform.types import Artifact, Case, Deviation, Kernel, Kink, Support

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Backend",
    "Case",
    "Deviation",
    "Kernel",
    "Kink",
    "Program",
    "Support",
    "Unavailable",
    "Unsupported",
    "__version__",
    "hookimpl",
]
