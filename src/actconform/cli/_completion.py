"""What a shell offers for an argument: backends, runtimes, exporters, routes, subjects, patterns, rules, of what is installed and set.

Switched on by `eval "$(_ACTCONFORM_COMPLETE=bash_source actconform)"`; zsh_source and fish_source likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from actconform.plugin.loader import Catalog


def _completing(offered: Callable[[Catalog, str], Iterable[str]]) -> Callable[..., list[CompletionItem]]:
    """Return the `shell_complete` of a parameter: what `offered` gives, for the catalog with the settings and the word so far."""

    def complete(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:  # noqa: ARG001  click's
        from actconform.errors import PluginError, UsageError
        from actconform.plugin.loader import load_plugins
        from actconform.settings import read_config
        from actconform.workers.from_settings import configured

        try:
            catalog = configured(load_plugins(judging=False), read_config())
        except (PluginError, UsageError):
            return []  # a shell that asks has no place for a message
        return [CompletionItem(name) for name in sorted(set(offered(catalog, word))) if name.startswith(word)]

    return complete


def _routes(catalog: Catalog) -> list[str]:
    from actconform.run.select import extras, routes

    return routes(catalog, extras(catalog))


def _computing(catalog: Catalog, kind: str = "") -> list[str]:
    from actconform.types import Route

    names = {Route.of(route).backend for route in _routes(catalog)}
    return [name for name in names if name in catalog.backends and kind in ("", catalog.backends[name].kind)]


def _exporters(catalog: Catalog) -> set[str]:
    from actconform.types import Route

    return {route.exporter for route in map(Route.of, _routes(catalog)) if route.exported}


def _subjects(catalog: Catalog) -> list[str]:
    return [*catalog.kernels, *catalog.models, *catalog.experiments]


def _trainers(catalog: Catalog) -> list[str]:
    from actconform.plugin.interfaces import Backend

    return [name for name in _computing(catalog) if catalog.backends[name].train is not Backend.train]


def _lint_rules(catalog: Catalog) -> list[str]:
    from actconform.linting.registry import OWN_RULES

    return [rule.code for rule in (*OWN_RULES, *catalog.lint_rules)]


def _patterns(catalog: Catalog, word: str) -> list[str]:
    """Return globs that go on from the parts of a pattern that are complete: SUBJECT/ASPECT/DTYPE/ROUTE."""
    from actconform.types import ASPECTS, TRAINING
    from actconform.types.dtypes import DTYPES

    complete, _, _ = word.rpartition("/")
    parts = complete.split("/") if complete else []
    following: list[list[str]] = [_subjects(catalog), [*ASPECTS, TRAINING], list(DTYPES), _routes(catalog)]
    if len(parts) >= len(following):
        return []
    last = len(parts) == len(following) - 1
    return ["/".join([*parts, name, *([] if last else ["*"])]) for name in following[len(parts)]]


patterns = _completing(_patterns)
backends = _completing(lambda catalog, _: _computing(catalog))
runtimes = _completing(lambda catalog, _: _computing(catalog, "runtime"))
routes = _completing(lambda catalog, _: _routes(catalog))
exporters = _completing(lambda catalog, _: _exporters(catalog))
kernels = _completing(lambda catalog, _: catalog.kernels)
subjects = _completing(lambda catalog, _: _subjects(catalog))
experiments = _completing(lambda catalog, _: catalog.experiments)
trainers = _completing(lambda catalog, _: _trainers(catalog))
lint_rules = _completing(lambda catalog, _: _lint_rules(catalog))
