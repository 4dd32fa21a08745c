"""The runtime that a user names: a plugin's, one of the settings, a variant, or NAME@VERSION in an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from actconform.checking.runs import RuntimeRuns
from actconform.errors import NoEnvironmentError, UsageError, near
from actconform.settings import BackendConfig, table_name, with_timeout
from actconform.types import base_name
from actconform.verdict.causes.register import with_files
from actconform.workers.environments import environment, is_installed
from actconform.workers.from_settings import configured_worker, in_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config

FULL = 3  # numbers of a release: with fewer, the newest release that begins with them is taken


def open_runtime(
    name: str,
    catalog: Catalog,
    config: Config,
    say: Callable[[str], None] = lambda _: None,
    *,
    timeout: float | None = None,
    plugins: Sequence[str] = (),
) -> RuntimeRuns:
    """Return the runs of the runtime `name`; its process starts at the first one, or with `start`.

    `name` is one of the catalog with the backends of the settings (`configured`), NAME@VARIANT of one, or NAME@VERSION: with that
    version of the first of its `packages`. "1.26" is the newest release of 1.26. `say` is called for
    what takes time; `timeout` is in seconds a call, by default that of the settings, and the process may take as long to start, at
    least 120 s; `plugins` are further ones, "module:attribute".

    Raises UsageError where there is no such runtime, and NoEnvironmentError where that version cannot be installed.
    """
    backend = runtime_backend(name, catalog)
    worker = name
    settings = config.backends.get(name, BackendConfig())
    label = name.partition("@")[2]
    if name not in catalog.backends and label in backend.variants:
        worker = backend.name
        settings = config.backends.get(worker, BackendConfig())
    elif name not in catalog.backends:
        settings = _with_version(backend, label, config)
    if settings.requirements:
        try:
            prepared = environment(
                settings.requirements,
                settings.python,
                lambda text: say(f"{name}: {text}"),
                dependencies=settings.dependencies,
            )
        except NoEnvironmentError as error:
            raise NoEnvironmentError(f"{name}: {error}") from None
        settings = in_environment(settings, prepared)
    config = with_timeout(config, timeout)
    config = msgspec.structs.replace(config, backends={**config.backends, worker: settings})
    return RuntimeRuns(
        name,
        backend,
        configured_worker(worker, config, plugins),
        config.timeout,
        register=with_files(catalog.register, config.deviations),
        kernels=catalog.kernels,
    )


def runtime_backend(name: str, catalog: Catalog) -> type[Backend]:
    """Return the backend of the runtime `name`, which may have a variant or a version; raise UsageError where there is none."""
    backend = catalog.backends.get(name) or catalog.backends.get(base_name(name))
    if backend is None or backend.kind != "runtime":
        kind = "is a framework, which runs no graphs" if backend else "is no runtime"
        raise UsageError(f"{name} {kind}{near(name, catalog.backend_names('runtime'))}")
    return backend


def _with_version(backend: type[Backend], version: str, config: Config) -> BackendConfig:
    """Return the settings of the backend with another version of its package; without one where the driver has that version."""
    name = f"{backend.name}@{version}"
    try:
        numbers = Version(version)
    except InvalidVersion:
        variants = [f"{backend.name}@{variant}" for variant in backend.variants]
        raise UsageError(f"{name}: {version!r} after the @ is no version{near(name, variants)}") from None
    settings = config.backends.get(backend.name, BackendConfig())
    if not backend.packages or settings.is_program:
        raise UsageError(
            f'{name}: {backend.name} does not name the package of which this would be a version; write requirements = ["PACKAGE=={version}"] '
            f"in {table_name(name)} of the settings"
        )
    required = {canonicalize_name(Requirement(text).name): text for text in settings.requirements}
    package = next((package for package in backend.packages if package in required), backend.packages[0])
    loose = len(numbers.release) < FULL and str(numbers) == numbers.base_version
    wanted = f"{package}=={version}{'.*' if loose else ''}"
    others = [text for package, text in required.items() if package not in backend.packages]
    needed = [wanted] if settings.python or not is_installed(wanted) else []
    return msgspec.structs.replace(settings, requirements=(*others, *needed))
