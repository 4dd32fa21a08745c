"""What is installed: entry points of group `actconform`, loaded one by one; a broken one is a record, not a crash."""

from __future__ import annotations

import inspect
import traceback
from functools import partial
from importlib import metadata
from pathlib import Path  # noqa: TC003  msgspec reads the annotations for a struct's fields
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy

from actconform.errors import InvalidPluginError, PluginError, near
from actconform.plugin import hookspecs
from actconform.plugin.lint_rule import LintRule  # noqa: TC001  msgspec reads the annotations for a struct's fields
from actconform.plugin.validate import (
    check_backend,
    check_data,
    check_exporter,
    check_folder,
    check_interface,
    check_lint_rule,
    check_release,
    check_reporter,
    check_subject,
    kind_of,
)
from actconform.types import Case, Kernel, Route, base_name
from actconform.types.cause import Register, join_registers
from actconform.types.fault import Fault
from actconform.types.model import Model
from actconform.types.training import Experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actconform.plugin.interfaces import Backend, Exporter, Reporter

GROUP = "actconform"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("actconform_"))


class Broken(msgspec.Struct, frozen=True):
    """A plugin that gives nothing, because it could not be imported or what its hooks return is wrong."""

    name: str
    distribution: str
    reason: str

    @property
    def message(self) -> str:
        """Its name and what is wrong, in the same words for every command."""
        return f"plugin {self.name} ({self.distribution}) is broken: {self.reason}"


class Catalog(msgspec.Struct, frozen=True):
    """All that the plugins offer; every exporter's source is among the backends, and is a framework. No two subjects share a name.

    `backend_plugin` and `exporter_plugin` say which distribution and version gives a backend or an exporter. `goldens` has for each
    subject of a plugin that keeps its own the folder where they lie.
    """

    kernels: dict[str, Kernel]
    models: dict[str, Model]
    backends: dict[str, type[Backend]]
    exporters: dict[str, type[Exporter]]
    register: Register
    faults: tuple[Fault, ...]
    broken: tuple[Broken, ...]
    backend_plugin: dict[str, str]
    exporter_plugin: dict[str, str]
    reporters: dict[str, type[Reporter]] = {}
    goldens: dict[str, Path] = {}
    experiments: dict[str, Experiment] = {}
    lint_rules: tuple[LintRule, ...] = ()

    def registered(self, case: Case) -> Case:
        """Return the case as registers know it: a variant goes under what it stands for."""
        route = Route.of(case.route)
        registered_route = Route(self._registered(route.exporter), route.constants, self._registered(route.backend))
        return msgspec.structs.replace(case, route=str(registered_route))

    def _registered(self, name: str) -> str:
        offered: dict[str, type[Backend | Exporter]] = {**self.backends, **self.exporters}
        offer = offered.get(name) or offered.get(base_name(name))
        return offer.stands_for if offer and offer.stands_for else name

    def backend_names(self, kind: str = "") -> list[str]:
        """Return the backends that a message may offer, sorted, of one kind or of both: none that stands for its variants alone."""
        names = (name for name, backend in self.backends.items() if kind in ("", backend.kind) and not backend.variants)
        return sorted(names)

    def worker(self, case: Case) -> str:
        """Return the backend whose process does the case: a variant has none of its own, a backend of the settings has."""
        return case.backend if case.backend in self.backends else case.worker

    def workers(self, cases: Iterable[Case]) -> set[str]:
        """Return the backends whose processes do the cases, and those that export graphs for them."""
        exporters = {case: self.exporter(case) for case in cases}
        return {self.worker(case) for case in exporters} | {
            exporter.source for exporter in exporters.values() if exporter
        }

    def exporter(self, case: Case) -> type[Exporter] | None:
        """Return what makes the case's graph, as variant or not; None where the driver does, or nothing."""
        name = case.exporter or ""
        return self.exporters.get(name) or self.exporters.get(base_name(name))

    @property
    def subjects(self) -> dict[str, Kernel | Model]:
        """All kernels and models by name."""
        return {**self.kernels, **self.models}

    @property
    def provable(self) -> dict[str, Kernel | Model | Experiment]:
        """All that has goldens, by name: kernels, models and experiments."""
        return {**self.kernels, **self.models, **self.experiments}

    def subject(self, name: str) -> Kernel | Model:
        """Return the kernel or model of that name; raise KeyError where there is none."""
        return self.kernels[name] if name in self.kernels else self.models[name]


class _Plugin(msgspec.Struct, frozen=True):
    name: str
    distribution: str
    load: Callable[[], object]

    @property
    def label(self) -> str:
        return f"{self.name} ({self.distribution})"


class _Offer(msgspec.Struct, frozen=True):
    kernels: tuple[Kernel, ...]
    models: tuple[Model, ...]
    experiments: tuple[Experiment, ...]
    backends: tuple[type[Backend], ...]
    exporters: tuple[type[Exporter], ...]
    registers: tuple[Register, ...]
    faults: tuple[Fault, ...]
    reporters: tuple[type[Reporter], ...]
    lint_rules: tuple[LintRule, ...]
    goldens: Path | None

    @property
    def subjects(self) -> tuple[Kernel | Model | Experiment, ...]:
        """Kernels, models and experiments share their names, as all stand first in a case."""
        return self.kernels + self.models + self.experiments


def load_plugins(
    extra: Iterable[object] = (), entry_points: Iterable[metadata.EntryPoint] | None = None, *, judging: bool = True
) -> Catalog:
    """Return what the plugins offer: those of `entry_points`, by default all installed ones, then the objects `extra`.

    A plugin that cannot be imported, whose hook raises or returns the wrong thing, or whose exporter has a source that no
    plugin gives, is in `broken` and gives nothing. Raises PluginError where two plugins, backends, exporters, kernels or
    causes have one name, or a hook is one that nothing would call. Without `judging`, as in a worker, plugins do not give
    causes, faults and reporters: reading the registers takes longer than all the rest.
    """
    plugins = [_from_entry_point(point) for point in (installed() if entry_points is None else entry_points)]
    _refuse_namesakes([(plugin.name, plugin.label) for plugin in plugins], "plugins")
    plugins += [_from_object(plugin, index) for index, plugin in enumerate(extra, start=1)]

    offers: list[tuple[_Plugin, _Offer]] = []
    broken: list[Broken] = []
    for plugin in plugins:
        try:
            offers.append((plugin, _offer(plugin, judging=judging)))
        except PluginError:
            raise
        except InvalidPluginError as error:
            broken.append(Broken(plugin.name, plugin.distribution, str(error)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever a plugin raises must not stop the others; a panic in Rust is no Exception
            broken.append(Broken(plugin.name, plugin.distribution, _reason(error)))

    _refuse_shared_names(offers)
    while orphans := _orphans([offer for _, offer in offers]):
        broken += [Broken(offers[at][0].name, offers[at][0].distribution, reason) for at, reason in orphans.items()]
        offers = [offered for at, offered in enumerate(offers) if at not in orphans]
    return Catalog(
        kernels={kernel.name: kernel for _, offer in offers for kernel in offer.kernels},
        models={model.name: model for _, offer in offers for model in offer.models},
        experiments={experiment.name: experiment for _, offer in offers for experiment in offer.experiments},
        lint_rules=tuple(
            sorted((rule for _, offer in offers for rule in offer.lint_rules), key=lambda rule: rule.code)
        ),
        backends={backend.name: backend for _, offer in offers for backend in offer.backends},
        exporters={exporter.name: exporter for _, offer in offers for exporter in offer.exporters},
        register=join_registers(register for _, offer in offers for register in offer.registers),
        faults=tuple(fault for _, offer in offers for fault in offer.faults),
        broken=tuple(broken),
        backend_plugin={backend.name: plugin.distribution for plugin, offer in offers for backend in offer.backends},
        exporter_plugin={
            exporter.name: plugin.distribution for plugin, offer in offers for exporter in offer.exporters
        },
        reporters={reporter.name: reporter for _, offer in offers for reporter in offer.reporters},
        goldens={subject.name: offer.goldens for _, offer in offers if offer.goldens for subject in offer.subjects},
    )


def installed() -> list[metadata.EntryPoint]:
    """Return the entry points of all installed plugins by name, the built-in one among them, without importing any.

    The order of the folder of packages would be another one on each machine.
    """
    return sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)


def plugin_versions() -> dict[str, str]:
    """Return the version of every installed distribution that has a plugin, without importing any."""
    return {point.dist.name: point.dist.version for point in installed() if point.dist is not None}


def _from_entry_point(point: metadata.EntryPoint) -> _Plugin:
    distribution = f"{point.dist.name} {point.dist.version}" if point.dist is not None else f"from {point.value}"
    return _Plugin(point.name, distribution, partial(_import, point))


def _import(point: metadata.EntryPoint) -> object:
    if point.dist is not None:
        check_release(point.dist)  # first: what does not fit may fail in any way while it is imported
    return point.load()


def _from_object(plugin: object, index: int) -> _Plugin:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return _Plugin(name, f"given directly, number {index}", lambda: plugin)


def _offer(plugin: _Plugin, *, judging: bool) -> _Offer:
    loaded = plugin.load()
    check_interface(loaded)  # first: its hooks may be ones that are unknown here
    if inspect.isclass(loaded):
        loaded = loaded()
    # A manager for each plugin: in a shared one a hook that raises ends the call for all.
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(loaded, plugin.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {plugin.label}: a hook does not fit: {error}".replace("\n", " ")) from error
    _refuse_mistyped(manager, loaded, plugin)
    if not manager.get_hookcallers(loaded):
        raise InvalidPluginError(f"it offers nothing: wanted a function marked @hookimpl, one of {', '.join(HOOKS)}")
    kernels = _collect(manager, "actconform_kernels", partial(check_subject, kind=Kernel))
    models = _collect(manager, "actconform_models", partial(check_subject, kind=Model))
    experiments = _collect(manager, "actconform_experiments", partial(check_subject, kind=Experiment))
    backends = _collect(manager, "actconform_backends", check_backend)
    exporters = _collect(manager, "actconform_exporters", check_exporter)
    rules = _collect(manager, "actconform_lint_rules", check_lint_rule)
    goldens = _goldens(manager)
    if not judging:
        return _Offer(kernels, models, experiments, backends, exporters, (), (), (), rules, goldens)
    registers = _collect(manager, "actconform_causes", partial(check_data, kind=Register))
    faults = _collect(manager, "actconform_faults", partial(check_data, kind=Fault))
    reporters = _collect(manager, "actconform_reporters", check_reporter)
    return _Offer(kernels, models, experiments, backends, exporters, registers, faults, reporters, rules, goldens)


def _collect(manager: pluggy.PluginManager, hook: str, check: Callable[[object], Any]) -> tuple[Any, ...]:
    caller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        return ()
    results = caller()
    if not results:  # pluggy drops None
        raise InvalidPluginError(f"{hook} returned None: wanted an iterable")
    try:
        items = iter(results[0])
    except TypeError:
        raise InvalidPluginError(f"{hook} returned {kind_of(results[0])}: wanted an iterable") from None
    offered = []
    for item in items:
        try:
            offered.append(check(item))
        except InvalidPluginError as error:
            raise InvalidPluginError(f"{hook} returned {error}") from None
    return tuple(offered)


def _goldens(manager: pluggy.PluginManager) -> Path | None:
    caller = manager.hook.actconform_goldens
    if not caller.get_hookimpls():
        return None
    try:
        return check_folder(next(iter(caller()), None))
    except InvalidPluginError as error:
        raise InvalidPluginError(f"actconform_goldens returned {error}") from None


def _orphans(offers: list[_Offer]) -> dict[int, str]:
    """Return what is wrong with each offer, by index, that has an exporter whose source no offer gives as a framework."""
    sources = {backend.name for offer in offers for backend in offer.backends if backend.kind == "framework"}
    wrong = "actconform_exporters returned {} with the source {!r}, and no plugin gives a framework of that name ({})"
    return {
        index: wrong.format(exporter.__name__, exporter.source, ", ".join(sorted(sources)) or "there is none")
        for index, offer in enumerate(offers)
        for exporter in offer.exporters
        if exporter.source not in sources
    }


def _refuse_mistyped(manager: pluggy.PluginManager, loaded: object, plugin: _Plugin) -> None:
    """Raise PluginError for a hook that pluggy registers and nothing calls, or that lacks its marker."""
    for caller in manager.get_hookcallers(loaded) or ():
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            hint = near(caller.name, list(HOOKS))
            raise PluginError(f"plugin {plugin.label} has a hook that nothing calls: {caller.name}{hint}")
    marked = {caller.name for caller in manager.get_hookcallers(loaded) or ()}
    for hook in HOOKS:
        if hook not in marked and inspect.isroutine(getattr(loaded, hook, None)):
            hint = "nothing calls it; mark it with @actconform.hookimpl"
            raise PluginError(f"plugin {plugin.label} has {hook} without the marker: {hint}")


def _refuse_shared_names(offers: list[tuple[_Plugin, _Offer]]) -> None:
    """Raise PluginError where two plugins, or one of them twice, offer something of one name."""
    for field in ("backends", "exporters", "subjects", "reporters"):
        named = [(item.name, plugin.label) for plugin, offer in offers for item in getattr(offer, field)]
        _refuse_namesakes(named, field)
    for field in ("causes", "libraries"):
        named = [
            (getattr(item, "id", None) or item.name, plugin.label)
            for plugin, offer in offers
            for register in offer.registers
            for item in getattr(register, field)
        ]
        _refuse_namesakes(list(dict.fromkeys(named)) if field == "libraries" else named, field)
    codes = [(item.code, plugin.label) for plugin, offer in offers for item in offer.lint_rules]
    _refuse_namesakes(codes, "rules of lint")
    files = [(item.filename, plugin.label) for plugin, offer in offers for item in offer.reporters]
    _refuse_namesakes(files, "files of reporters")


def _refuse_namesakes(named: list[tuple[str, str]], field: str) -> None:
    givers: dict[str, str] = {}
    for name, giver in named:
        if name in givers:
            both = f"both from {giver}" if givers[name] == giver else f"one from {givers[name]}, one from {giver}"
            raise PluginError(f"two {field} are called {name!r}: {both}; uninstall or rename one")
        givers[name] = giver


def _reason(error: BaseException) -> str:
    message = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{message} (at {frames[-1].filename}:{frames[-1].lineno})" if frames else message
