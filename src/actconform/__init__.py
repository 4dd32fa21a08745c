"""Tells whether an exported model still computes what was trained, and if not, whose fault it is."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actconform import _renamed
from actconform._version import __version__
from actconform.errors import SourceError, Unavailable, Unsupported
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend, Exporter, Library, Program, Reporter
from actconform.plugin.trained_model import TrainedModel
from actconform.types import Artifact, Case, Convention, Kernel, Kink, Support
from actconform.types.fault import Fault
from actconform.types.model import LOSS, OUTPUT, Input, Layer, Model
from actconform.types.report import Report

_renamed.install()

if TYPE_CHECKING:
    from actconform.accuracy.arrays.compare import compare
    from actconform.accuracy.function.measure import measure
    from actconform.api.check import check
    from actconform.api.lint import lint
    from actconform.api.train import train_model
    from actconform.catalog.models.builder import describe, layer
    from actconform.plugin.lint_rule import LintRule
    from actconform.types import Bundle
    from actconform.types.cause import Register
    from actconform.types.lint import LintFix, LintObservation
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

# Imported where they are used: they need numpy or onnx, which a worker or `--help` does not load for their sake.
_LAZY = {
    "LintFix": "actconform.types.lint",
    "LintObservation": "actconform.types.lint",
    "LintRule": "actconform.plugin.lint_rule",
    "Register": "actconform.types.cause",
    "check": "actconform.api.check",
    "compare": "actconform.accuracy.arrays.compare",
    "describe": "actconform.catalog.models.builder",
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
