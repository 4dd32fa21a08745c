"""The backends that the settings add to those of the plugins: commands, and plugins' backends in other environments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actconform.errors import NoEnvironmentError, UsageError, near
from actconform.plugin.interfaces import Backend, Exporter
from actconform.plugin.validate import SAFE_NAME
from actconform.settings import BackendConfig, table_name
from actconform.types import CONSTANTS, DRIVER_EXPORTER
from actconform.workers import command_runtime
from actconform.workers.client import START_SECONDS, Worker
from actconform.workers.environments import environment
from actconform.workers.server import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.workers.environments import Environment

Offered = TypeVar("Offered", Backend, Exporter)
NAME = "wanted lower case letters, digits and . _ -"


def configured(catalog: Catalog, config: Config) -> Catalog:
    """Return the catalog with a backend for each `[backends.NAME]` that is a command, or is called "BASE@LABEL".

    The latter is like BASE, under whose name it is registered, and has the exporters of BASE where that is a framework. Raises
    UsageError, naming the file and the table, where there is no such BASE, or the name is invalid or taken.
    """
    for name, settings in config.backends.items():
        try:
            if settings.is_program:
                catalog = _with_command(catalog, _about(name, config), config.path)
            elif "@" in name and name not in catalog.backends:
                catalog = _with_column(catalog, name)
            elif name not in catalog.backends:
                raise UsageError(f"no such backend{near(name, catalog.backend_names())}")
        except UsageError as error:
            raise UsageError(f"{config.path}: {table_name(name)}: {error}") from None
    return catalog


def configured_worker(name: str, config: Config, plugins: Sequence[str] = ()) -> Worker:
    """Return the worker of a backend under the settings, not yet started; `plugins` are further ones, "module:attribute"."""
    settings = config.backends.get(name, BackendConfig())
    env, own_plugins = surroundings(name, config)
    return Worker(
        name,
        python=settings.python,
        env=env,
        threads=config.threads,
        plugins=(*plugins, *own_plugins),
        unavailable=config.unavailable.get(name, ""),
        start_seconds=max(START_SECONDS, config.timeout),
    )


def surroundings(name: str, config: Config) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment variables of a backend's processes under the settings, and the plugins that they need there."""
    settings = config.backends.get(name, BackendConfig())
    if not settings.is_program:
        return dict(settings.env), ()
    about = msgspec.json.encode(_about(name, config)).decode()
    return {**settings.env, command_runtime.ABOUT: about}, (command_runtime.PLUGIN,)


def with_environments(config: Config, backends: Iterable[str], say: Callable[[str], None]) -> Config:
    """Return the settings with an interpreter in place of each of these backends' requirements, made where it must be.

    Where one cannot be made, its backend is unavailable, with the reason, the file and the table. `say` is called for what takes time.
    """
    supplied = dict(config.backends)
    unavailable = dict(config.unavailable)
    for name in sorted(backends):
        settings = supplied.get(name)
        if settings is None or not settings.requirements:
            continue
        try:
            replacement = environment(
                settings.requirements,
                settings.python,
                lambda text, name=name: say(f"{name}: {text}"),  # type: ignore[misc]
                dependencies=settings.dependencies,
            )
        except NoEnvironmentError as error:
            unavailable[name] = f"{error} ({config.path}: {table_name(name)})"
        else:
            supplied[name] = in_environment(settings, replacement)
    return msgspec.structs.replace(config, backends=supplied, unavailable=unavailable)


def in_environment(settings: BackendConfig, environment: Environment) -> BackendConfig:
    """Return the settings under which a worker is one of the environment."""
    own_packages = environment.about.packages if environment.about else {}
    env = {
        **settings.env,
        ENVIRONMENT: ", ".join(f"{name} {own_packages[name]}" for name in sorted(own_packages)) or "nothing of its own",
    }
    if path := env.get("PYTHONPATH", os.environ.get("PYTHONPATH")):
        env["PYTHONPATH"] = os.pathsep.join(
            (str(environment.packages), path)
        )  # the environment's packages still come first
    return msgspec.structs.replace(
        settings, python=str(environment.python), env=env, requirements=(), dependencies=True
    )


def _about(name: str, config: Config) -> command_runtime.CommandSettings:
    settings = config.backends[name]
    return command_runtime.CommandSettings(
        name=name,
        command=settings.command,
        prepare=settings.prepare,
        serve=settings.serve,
        tensors=settings.tensors or "npy",
        version=settings.version,
        version_seconds=max(command_runtime.VERSION_SECONDS, config.timeout),
        folder=str(Path(config.path).parent.resolve()),
    )


def _with_command(catalog: Catalog, about: command_runtime.CommandSettings, path: str) -> Catalog:
    name = about.name
    if not SAFE_NAME.fullmatch(name) or "@" in name:
        raise UsageError(f"this is no name of a backend: {NAME}")
    if name in catalog.backends or name in catalog.exporters or name == DRIVER_EXPORTER:
        giver = catalog.backend_plugin.get(name) or catalog.exporter_plugin.get(name) or "the driver"
        raise UsageError(f"a command cannot be called as what {giver} gives; choose another name")
    return msgspec.structs.replace(
        catalog,
        backends={**catalog.backends, name: command_runtime.runtime(about)},
        backend_plugin={**catalog.backend_plugin, name: path},
    )


def _with_column(catalog: Catalog, name: str) -> Catalog:
    base, _, label = name.partition("@")
    if base not in catalog.backends:
        raise UsageError(f"no such backend {base!r}{near(base, catalog.backend_names())}")
    of = catalog.backends[base]
    if issubclass(of, command_runtime.CommandRuntime):
        raise UsageError(f"{base} is a command: write another one, with a name of its own, in place of a label")
    if not SAFE_NAME.fullmatch(label) or "@" in label or f"@{label}" == CONSTANTS:
        raise UsageError(f"{label!r} after the @ is no label: {NAME}, and another than {CONSTANTS.removeprefix('@')}")
    exporters = {
        f"{exporter.name}@{label}": exporter
        for exporter in catalog.exporters.values()
        if exporter.source == base and not exporter.variants
    }
    if of.variants:
        raise UsageError(
            f"{base} stands for its variants alone, {base}@{of.variants[0]} and others; name another backend"
        )
    return msgspec.structs.replace(
        catalog,
        backends={**catalog.backends, name: _renamed(of, name, extra=False)},
        exporters={
            **catalog.exporters,
            **{full_name: _renamed(exporter, full_name, source=name) for full_name, exporter in exporters.items()},
        },
        backend_plugin={**catalog.backend_plugin, name: catalog.backend_plugin[base]},
        exporter_plugin={
            **catalog.exporter_plugin,
            **{full_name: catalog.exporter_plugin[exporter.name] for full_name, exporter in exporters.items()},
        },
    )


def _renamed(of: type[Offered], name: str, **changed: Any) -> type[Offered]:
    """Return the class under another name; deviations registered for the old name apply to it."""
    renamed: type[Offered] = type(of.__name__, (of,), {"name": name, "stands_for": of.stands_for or of.name, **changed})
    return renamed
