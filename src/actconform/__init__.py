"""Tells whether an exported model still computes what was trained, and if not, whose fault it is."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actconform import _renamed
from actconform._version import __version__

_renamed.install()

if TYPE_CHECKING:
    from actconform.accuracy.arrays.compare import compare
    from actconform.accuracy.function.measure import measure
    from actconform.api.check import check
    from actconform.api.lint import lint
    from actconform.api.train import train_model
    from actconform.catalog.models.builder import describe, layer
    from actconform.errors import SourceError, Unavailable, Unsupported
    from actconform.plugin.hookspecs import hookimpl
    from actconform.plugin.interfaces import Backend, Exporter, Library, Program, Reporter
    from actconform.plugin.lint_rule import LintRule
    from actconform.plugin.trained_model import TrainedModel
    from actconform.types import Artifact, Bundle, Case, Convention, Kernel, Kink, Support
    from actconform.types.cause import Register
    from actconform.types.fault import Fault
    from actconform.types.lint import LintFix, LintObservation
    from actconform.types.model import LOSS, OUTPUT, Input, Layer, Model
    from actconform.types.report import Report
    from actconform.verdict.causes.register import register_of

__all__ = [
    "LOSS",
    "OUTPUT",
    "Artifact",
    "Backend",
    "Bundle",
    "Case",
    "Convention",
    "Exporter",
    "Fault",
    "Input",
    "Kernel",
    "Kink",
    "Layer",
    "Library",
    "LintFix",
    "LintObservation",
    "LintRule",
    "Model",
    "Program",
    "Register",
    "Report",
    "Reporter",
    "SourceError",
    "Support",
    "TrainedModel",
    "Unavailable",
    "Unsupported",
    "__version__",
    "check",
    "compare",
    "describe",
    "hookimpl",
    "layer",
    "lint",
    "measure",
    "register_of",
    "train_model",
]

# Imported where they are used: a command line that prints its help, or a worker, loads none for the others' sake.
_LAZY = {
    "LOSS": "actconform.types.model",
    "OUTPUT": "actconform.types.model",
    "Artifact": "actconform.types",
    "Backend": "actconform.plugin.interfaces",
    "Case": "actconform.types",
    "Convention": "actconform.types",
    "Exporter": "actconform.plugin.interfaces",
    "Fault": "actconform.types.fault",
    "Input": "actconform.types.model",
    "Kernel": "actconform.types",
    "Kink": "actconform.types",
    "Layer": "actconform.types.model",
    "Library": "actconform.plugin.interfaces",
    "LintFix": "actconform.types.lint",
    "LintObservation": "actconform.types.lint",
    "LintRule": "actconform.plugin.lint_rule",
    "Model": "actconform.types.model",
    "Program": "actconform.plugin.interfaces",
    "Register": "actconform.types.cause",
    "Report": "actconform.types.report",
    "Reporter": "actconform.plugin.interfaces",
    "SourceError": "actconform.errors",
    "Support": "actconform.types",
    "TrainedModel": "actconform.plugin.trained_model",
    "Unavailable": "actconform.errors",
    "Unsupported": "actconform.errors",
    "check": "actconform.api.check",
    "compare": "actconform.accuracy.arrays.compare",
    "describe": "actconform.catalog.models.builder",
    "hookimpl": "actconform.plugin.hookspecs",
    "layer": "actconform.catalog.models.builder",
    "lint": "actconform.api.lint",
    "measure": "actconform.accuracy.function.measure",
    "register_of": "actconform.verdict.causes.register",
    "train_model": "actconform.api.train",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "Bundle":
        return Mapping[str, Any]  # of numpy arrays, for those who check types
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
