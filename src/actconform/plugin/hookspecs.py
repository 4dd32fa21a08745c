"""What a plugin may offer. Hooks say what exists; nothing is called back for each case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from actconform.plugin.interfaces import Backend, Exporter, Reporter
    from actconform.plugin.lint_rule import LintRule
    from actconform.types import Kernel
    from actconform.types.cause import Register
    from actconform.types.fault import Fault
    from actconform.types.model import Model
    from actconform.types.training import Experiment

hookspec = pluggy.HookspecMarker("actconform")
hookimpl = pluggy.HookimplMarker("actconform")

INTERFACE = 1
"""The version of these hooks, and of the classes that they return. A plugin states as `actconform_interface` for which it was
written, 1 where it says nothing; one for another version is refused."""


@hookspec
def actconform_kernels() -> Iterable[Kernel]:  # type: ignore[empty-body]
    """Kernels, with formula, exact reference and graph registered under their names."""


@hookspec
def actconform_models() -> Iterable[Model]:  # type: ignore[empty-body]
    """Reference models, made by actconform.catalog.models.builder; each kind of layer has its formulas and graph registered."""


@hookspec
def actconform_experiments() -> Iterable[Experiment]:  # type: ignore[empty-body]
    """Experiments in training, each of a model described as those of `actconform_models` are."""


@hookspec
def actconform_backends() -> Iterable[type[Backend]]:  # type: ignore[empty-body]
    """Backend classes; the framework itself is imported only inside their methods."""


@hookspec
def actconform_exporters() -> Iterable[type[Exporter]]:  # type: ignore[empty-body]
    """Exporter classes; each runs in the worker of the backend that it names as its source."""


@hookspec
def actconform_faults() -> Iterable[Fault]:  # type: ignore[empty-body]
    """Injected faults, each a variant of a backend or exporter of the plugin: what `actconform selftest` must see found."""


@hookspec
def actconform_causes() -> Iterable[Register]:  # type: ignore[empty-body]
    """Known causes of findings on the plugin's own routes: `register_of(__name__)` reads causes.toml beside the module."""


@hookspec
def actconform_reporters() -> Iterable[type[Reporter]]:  # type: ignore[empty-body]
    """Reporter classes: each writes one file beside report.json at the end of a run, and for `actconform report`."""


@hookspec
def actconform_lint_rules() -> Iterable[LintRule]:  # type: ignore[empty-body]
    """Rules of `actconform lint`: known mistakes that are seen in a model before anything runs."""


@hookspec
def actconform_goldens() -> Path:  # type: ignore[empty-body]
    """The folder of the plugin's own where `actconform golden mint` writes the truth of its kernels and models, and where it is found."""
