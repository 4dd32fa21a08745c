"""What the hooks of a plugin may return, item by item: whatever else is named, with what was wanted."""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from packaging.requirements import Requirement

from actconform._version import __version__
from actconform.errors import InvalidPluginError, near
from actconform.plugin.hookspecs import INTERFACE
from actconform.plugin.interfaces import Backend, Exporter, Reporter
from actconform.plugin.lint_rule import LintRule
from actconform.types import DRIVER_EXPORTER, Kernel
from actconform.types.cause import Register
from actconform.types.fault import Fault
from actconform.types.lint import NEEDS, SEVERITIES
from actconform.types.model import Model
from actconform.types.training import DATA_SET_NAMES, Experiment

SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9.@_-]*")
LINT_CODE = re.compile(r"[A-Z]{2,8}[0-9]{3}")
SAFE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN_FILES = ("report.json", "results.jsonl", "facts.json", "throughput.json")
Offered = TypeVar("Offered", Backend, Exporter, Reporter)
Subject = TypeVar("Subject", Kernel, Model, Experiment)
Data = TypeVar("Data", Register, Fault)


def check_interface(plugin: object) -> None:
    """Refuse a plugin that says that it was written for another version of the hooks than this one."""
    wanted = getattr(plugin, "actconform_interface", 1)
    if wanted != INTERFACE:
        raise InvalidPluginError(
            f"it is written for version {wanted} of the plugin interface, and actconform {__version__} has version "
            f"{INTERFACE}: install the release of the plugin for version {INTERFACE}, or an actconform with version {wanted}"
        )


def check_release(distribution: metadata.Distribution) -> None:
    """Refuse a plugin whose package requires another release of actconform than the installed one."""
    for text in distribution.requires or ():
        if not text.startswith("actconform"):
            continue  # reading all of them would take longer than the rest of the check
        needed = Requirement(text)
        if needed.name != "actconform" or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        # Of the installed packages, as the requirement is: a checkout may be ahead of both.
        try:
            there = metadata.version("actconform")
        except metadata.PackageNotFoundError:
            return
        if not needed.specifier.contains(there, prereleases=True):
            raise InvalidPluginError(
                f"it requires actconform{needed.specifier}, and {there} is installed: "
                f'pip install --upgrade {distribution.name}, or pip install "actconform{needed.specifier}"'
            )


def check_subject(item: object, kind: type[Subject]) -> Subject:
    """Return a kernel, model or experiment whose name is safe in a case."""
    if not isinstance(item, kind):
        raise InvalidPluginError(f"{kind_of(item)} among its items: wanted actconform.{kind.__name__}")
    if not SAFE_NAME.fullmatch(item.name):
        wanted = "wanted lower case letters, digits and . _ - @"
        raise InvalidPluginError(f"a {kind.__name__.lower()} called {item.name!r}: {wanted}")
    if isinstance(item, Experiment):
        _check_experiment(item)
    return item


def _check_experiment(experiment: Experiment) -> None:
    """Refuse an experiment that nothing could train."""
    label = f"the experiment {experiment.name!r}"
    if experiment.data not in DATA_SET_NAMES:
        raise InvalidPluginError(
            f"{label} with the data set {experiment.data!r}{near(str(experiment.data), list(DATA_SET_NAMES))}: wanted {', '.join(DATA_SET_NAMES)}"
        )
    if min(experiment.batch, experiment.epochs, experiment.validation, experiment.judged) < 1 or not experiment.steps:
        raise InvalidPluginError(
            f"{label} of {experiment.examples} examples, batch {experiment.batch}, {experiment.epochs} epochs, {experiment.validation} "
            f"validation examples, {experiment.judged} judged steps: wanted positive numbers, and no batch larger than the examples"
        )
    shapes = [{one.name: one.shape for one in model.parameters} for model in (experiment.model, experiment.evaluation)]
    if shapes[0] != shapes[1]:
        raise InvalidPluginError(f"{label} whose model has other parameters in inference than in training")


def check_backend(item: object) -> type[Backend]:
    """Return a backend of one of the two kinds."""
    backend = _check_class(item, Backend)  # type: ignore[type-abstract]
    kind = getattr(backend, "kind", None)
    if kind not in ("framework", "runtime"):
        raise InvalidPluginError(f'{backend.__name__} of kind {kind!r}: wanted "framework" or "runtime"')
    return backend


def check_exporter(item: object) -> type[Exporter]:
    """Return an exporter that names a source and has a name of its own."""
    exporter = _check_class(item, Exporter)  # type: ignore[type-abstract]
    if exporter.name == DRIVER_EXPORTER:
        raise InvalidPluginError(f"{exporter.__name__} with the name {DRIVER_EXPORTER!r}: that is the driver's own")
    if not isinstance(getattr(exporter, "source", None), str):
        raise InvalidPluginError(f"{exporter.__name__} without a source: wanted the name of a backend")
    return exporter


def check_reporter(item: object) -> type[Reporter]:
    """Return a reporter whose file is a plain name in the folder of a run, and none of the run's own."""
    reporter = _check_class(item, Reporter)  # type: ignore[type-abstract]
    name = getattr(reporter, "filename", None)
    if not (isinstance(name, str) and SAFE_FILE.fullmatch(name)) or name in OWN_FILES:
        raise InvalidPluginError(
            f"{reporter.__name__} with the file {name!r}: wanted a plain name, none of {', '.join(OWN_FILES)}"
        )
    return reporter


def _check_class(item: object, base: type[Offered]) -> type[Offered]:
    if not (inspect.isclass(item) and issubclass(item, base)):
        subclasses = f"subclasses of actconform.{base.__name__}"
        wanted = "the class itself, not an instance" if isinstance(item, base) else subclasses
        raise InvalidPluginError(f"{kind_of(item)} among its items: wanted {wanted}")
    if inspect.isabstract(item):
        missing = ", ".join(sorted(item.__abstractmethods__))
        raise InvalidPluginError(f"{item.__name__}, which is not whole: it does not define {missing}")
    name = getattr(item, "name", None)
    if not (isinstance(name, str) and SAFE_NAME.fullmatch(name)):
        raise InvalidPluginError(
            f"{item.__name__} with the name {name!r}: wanted lower case letters, digits and . _ - @"
        )
    return item


def check_data(item: object, kind: type[Data]) -> Data:
    """Return a register of causes or a fault."""
    if not isinstance(item, kind):
        raise InvalidPluginError(f"{kind_of(item)} among its items: wanted actconform.{kind.__name__}")
    return item


def check_lint_rule(item: object) -> LintRule:
    """Return a rule of lint that can be told and called."""
    if not isinstance(item, LintRule):
        raise InvalidPluginError(f"{kind_of(item)} among its items: wanted actconform.LintRule")
    if not (isinstance(item.code, str) and LINT_CODE.fullmatch(item.code)):
        raise InvalidPluginError(
            f"a rule with the code {item.code!r}: wanted capital letters and three digits, as XY101"
        )
    if re.fullmatch("AC[0-9]+", item.code):
        raise InvalidPluginError(f"a rule with the code {item.code}: AC is for the rules of actconform itself")
    if not (isinstance(item.name, str) and SAFE_NAME.fullmatch(item.name)):
        raise InvalidPluginError(
            f"the rule {item.code} called {item.name!r}: wanted lower case letters, digits and . _ - @"
        )
    if item.severity not in SEVERITIES:
        raise InvalidPluginError(f"the rule {item.code} of severity {item.severity!r}: wanted {', '.join(SEVERITIES)}")
    if item.needs not in NEEDS:
        raise InvalidPluginError(f"the rule {item.code} that needs {item.needs!r}: wanted {', '.join(NEEDS[1:])} or ''")
    if not callable(item.check) or not (item.fix is None or callable(item.fix)):
        raise InvalidPluginError(f"the rule {item.code} whose check or fix cannot be called: wanted functions")
    return item


def check_folder(item: object) -> Path:
    """Return a folder that need not be there yet, by its whole path: workers and runs start elsewhere."""
    if not isinstance(item, Path):
        raise InvalidPluginError(f"{kind_of(item)}: wanted a pathlib.Path, as Path(__file__).parent / 'golden'")
    if not item.is_absolute():
        raise InvalidPluginError(f"the path {item}: wanted a whole one, as Path(__file__).parent / 'golden'")
    return item


def kind_of(item: object) -> str:
    """Say in words what was returned instead."""
    return f"the class {item.__name__}" if inspect.isclass(item) else f"a value of type {type(item).__name__}"
