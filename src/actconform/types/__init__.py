"""The data that the stages pass on, frozen; these modules import nothing of actconform but each other."""

from typing import TYPE_CHECKING

from actconform.types.artifact import Artifact
from actconform.types.case import CONSTANTS, DRIVER_EXPORTER, Case, Route, Support, base_name
from actconform.types.finding import NOWHERE, Blame, Finding, FindingClass, Interval, Place, Severity, Worst
from actconform.types.kernel import ASPECTS, DERIVATIVE_AT_NAN, INF, TRAINING, Aspect, Convention, Kernel, Kink, f32
from actconform.types.result import BAD, RAN, Measurement, Profile, Result, Verdict

if TYPE_CHECKING:
    from actconform.types.case import Bundle  # noqa: TC004  a type for checkers alone: at run time it needs numpy

__all__ = [
    "ASPECTS",
    "BAD",
    "CONSTANTS",
    "DERIVATIVE_AT_NAN",
    "DRIVER_EXPORTER",
    "INF",
    "NOWHERE",
    "RAN",
    "TRAINING",
    "Artifact",
    "Aspect",
    "Blame",
    "Bundle",
    "Case",
    "Convention",
    "Finding",
    "FindingClass",
    "Interval",
    "Kernel",
    "Kink",
    "Measurement",
    "Place",
    "Profile",
    "Result",
    "Route",
    "Severity",
    "Support",
    "Verdict",
    "Worst",
    "base_name",
    "f32",
]
