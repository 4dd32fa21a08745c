"""Modules under their names before 0.2, for one release: each import warns and gives the module under its new name."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader  # which takes long to import
    from types import ModuleType

# Old to new, below actconform; what was below an old package is below the new one.
RENAMED = {
    "adopt": "verdict.adopt",
    "as_json": "types.json",
    "bisect_packages": "report.across_runs.bisect_packages",
    "blame": "verdict.blame",
    "catalog.inputs": "testdata.regimes",
    "catalog.models.describe": "catalog.models.builder",
    "catalog.models.draws": "testdata.model_tensors",
    "catalog.models.kinds": "catalog.models.layer_kinds",
    "catalog.models.networks": "catalog.models.zoo",
    "catalog.piecewise": "catalog.kernels.piecewise",
    "catalog.properties": "testdata.metamorphic",
    "catalog.rows": "catalog.kernels.rows",
    "catalog.smooth": "catalog.kernels.smooth",
    "causes": "verdict.causes",
    "code": "workers.code",
    "config": "settings",
    "configured": "workers.from_settings",
    "contract.state": "workers.process_state",
    "contract.watch": "contract.recording_backend",
    "cpu": "machine.cpu",
    "document": "types.report",
    "draw": "testdata.kernel_vectors",
    "draw_model": "testdata.model_vectors",
    "environments": "workers.environments",
    "exports": "run.export_cache",
    "faults": "types.fault",
    "formats": "types.dtypes",
    "golden": "testdata.golden",
    "golden.networks": "testdata.golden.model_goldens",
    "gpu": "machine.gpu",
    "hookspecs": "plugin.hookspecs",
    "importing": "plugin.import_failure",
    "interfaces": "plugin.interfaces",
    "judge": "verdict.judge",
    "line": "run.case",
    "model": "types.model",
    "offers": "plugin.validate",
    "onednn": "machine.onednn",
    "onnx.artifact": "onnx.gates",
    "onnx.asked": "onnx.grad.arguments",
    "onnx.author_model": "onnx.author.model",
    "onnx.fold": "onnx.constant_folding",
    "onnx.graphs": "onnx.author.kernels",
    "onnx.ideal": "onnx.evaluate.evaluator",
    "onnx.ideal_layers": "onnx.evaluate.layers",
    "onnx.ideal_moves": "onnx.evaluate.indexing",
    "onnx.ideal_ops": "onnx.evaluate.elementwise",
    "onnx.ideal_recurrent": "onnx.evaluate.recurrent",
    "onnx.ideal_signals": "onnx.evaluate.signals",
    "onnx.ideal_windows": "onnx.evaluate.windows",
    "onnx.layer_graphs": "onnx.author.layers",
    "onnx.layer_graphs_memory": "onnx.author.layers",
    "onnx.lost": "onnx.grad.notes",
    "onnx.nested": "onnx.nested_graphs",
    "onnx.older": "onnx.opset_conversion",
    "onnx.outline": "onnx.strip_weights",
    "onnx.prefix": "onnx.subgraph",
    "onnx.reference": "onnx.evaluate.reference",
    "onnx.rewritten": "onnx.opset_rewrites",
    "onnx.rules": "onnx.grad.rules",
    "onnx.rules.build": "onnx.grad.rules.graph_builder",
    "onnx.rules.known": "onnx.grad.rules.tensor_info",
    "onnx.size": "onnx.size_limits",
    "onnx.sized": "onnx.pool_sizes",
    "oracle.definitions": "oracle.arb.kernels",
    "oracle.exact": "oracle.arb.correctly_rounded",
    "oracle.exact_rows": "oracle.arb.rows",
    "oracle.formulas": "oracle.float64.registry",
    "oracle.formulas_piecewise": "oracle.float64.piecewise",
    "oracle.formulas_smooth": "oracle.float64.smooth",
    "oracle.layers_attention": "oracle.layers.attention",
    "oracle.layers_dense": "oracle.layers.dense",
    "oracle.layers_loss": "oracle.layers.losses",
    "oracle.layers_memory": "oracle.layers.memory",
    "oracle.layers_norm": "oracle.layers.normalization",
    "oracle.network": "oracle.layers.model",
    "oracle.rows": "oracle.float64.rows",
    "plugins": "plugin.loader",
    "probe": "run.layer_values",
    "pulled": "onnx.gradient_artifact",
    "record": "run.recorder",
    "report.accuracy": "report.files.accuracy",
    "report.console": "report.terminal.console",
    "report.diff": "report.across_runs.diff",
    "report.diff_text": "report.across_runs.diff_text",
    "report.document": "report.read",
    "report.facts": "report.across_runs.changed_facts",
    "report.history": "report.across_runs.history",
    "report.junit": "report.files.junit",
    "report.known": "report.files.known_deviations",
    "report.markdown": "report.files.markdown",
    "report.merge": "report.across_runs.merge",
    "report.progress": "report.terminal.progress",
    "report.schema": "report.files.schema",
    "report.screen": "report.terminal.screen",
    "report.marked": "report.marked_section",
    "report.repeat": "report.rerun_command",
    "report.share": "report.error_ratio",
    "report.speeds": "report.terminal.speeds",
    "report.summary": "report.text.summary",
    "report.write": "report.files.write",
    "scaffold": "plugin.scaffold",
    "select": "run.select",
    "severity": "verdict.severity",
    "spelling": "errors",
    "throughput": "bench",
    "throughput.floor": "bench.runner",
    "throughput.judged": "bench.verdicts",
    "throughput.measured": "bench.results",
    "throughput.memory": "bench.available_memory",
    "throughput.trials": "bench.workloads",
    "throughput.turns": "bench.interleaved",
    "throughput.work": "bench.flops",
    "witness": "verdict.reevaluate",
    "workers.command": "workers.command_runtime",
    "workers.growth": "workers.resources",
    "workers.heard": "workers.captured_warnings",
    "workers.pool": "workers.client",
}
# Modules that are packages now, to the module that has their names.
MOVED = {
    "actconform.run": "actconform.run.scheduler",
    "actconform.catalog.kernels": "actconform.plugin.builtin",
    "actconform.onnx.author": "actconform.onnx.author.exporter",
    "actconform.oracle.layers": "actconform.oracle.layers.registry",
    "actconform.oracle.arb": "actconform.oracle.arb.flint",
}

# Public classes that are called otherwise now, by the module that has them.
CLASSES = {
    "actconform.onnx.grad.rules.graph_builder": {"Build": "GraphBuilder"},
    "actconform.onnx.evaluate.evaluator": {"IdealRuntime": "CorrectlyRoundedEvaluator"},
}


def new_name(module: str) -> str | None:
    """Return the new name of a module below actconform, None where it has none."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        new = RENAMED.get(".".join(parts[:end]))
        if new is not None:
            return ".".join([new, *parts[end:]])
    return None


class OldNames:
    """Finds modules of actconform by their old names: asked first, or what is below an old package would be run a second time."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of an old name, None for every other."""
        package, _, module = fullname.partition(".")
        new = new_name(module) if package == "actconform" else None
        return ModuleSpec(fullname, cast("Loader", _Renamed(f"actconform.{new}"))) if new else None


class _Renamed:
    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        message = f"{spec.name} is {self._new} now; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is: it has run under its own name."""
        module.__spec__ = self._spec


def install() -> None:
    """Make old names importable."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())


def moved(package: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that was a module: its names are in a module below it, or beside it."""

    def named(name: str) -> Any:
        home = MOVED[package]
        if name.startswith("__") or not hasattr(importlib.import_module(home), name):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        message = f"{package}.{name} is {home}.{name} now; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), name)

    return named


def old_class_names(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module some of whose classes are called otherwise now."""

    def named(name: str) -> Any:
        if name not in CLASSES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = CLASSES[module][name]
        message = f"{module}.{name} is {new} now; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(module), new)

    return named
