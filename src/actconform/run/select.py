"""Which cases there are, and which of them a run selects. A pattern that selects nothing is an error, not an empty success."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import UsageError, near
from actconform.types import ASPECTS, CONSTANTS, DRIVER_EXPORTER, TRAINING, Case, Route
from actconform.types.dtypes import DTYPES, TRAINED_DTYPE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from actconform.plugin.interfaces import Backend, Exporter
    from actconform.plugin.loader import Catalog
    from actconform.types import Result


EXPORTED_DTYPES = ("f32", "f16")
SHIPPED_DTYPES = ("f32",)  # of models that an exporter made a graph of, most of a run's time, and of published sizes
ALL = "all"  # as --backend: every backend, those among them that run only where they are asked for


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; empty means all."""

    patterns: Sequence[str] = ()
    backends: Sequence[str] = ()
    routes: Sequence[str] = ()
    aspects: Sequence[str] = ()
    dtypes: Sequence[str] = ()


def variants(catalog: Catalog) -> set[str]:
    """Return all variants of backends and exporters, as NAME@VARIANT: they run where a word of the user's names them."""
    offered: dict[str, type[Backend | Exporter]] = {**catalog.backends, **catalog.exporters}
    return {f"{name}@{variant}" for name, component in offered.items() for variant in component.variants}


def extras(catalog: Catalog) -> set[str]:
    """Return all backends that are `extra`, and the exporters of such: they run where a word of the user's names them."""
    extra_backends = {name for name, backend in catalog.backends.items() if backend.extra}
    return extra_backends | {name for name, exporter in catalog.exporters.items() if exporter.source in extra_backends}


def asked_for(catalog: Catalog, wanted: Selection) -> set[str]:
    """Return the variants and extra backends and exporters that the selection names, whole, in whatever word.

    With `--backend all` these are all extra ones.
    """
    words = [word for part in (wanted.patterns, wanted.backends, wanted.routes) for word in part]
    parts = {part.removesuffix(CONSTANTS) for word in words for piece in word.split("/") for part in piece.split("+")}
    named = (variants(catalog) | extras(catalog)) & parts
    return named | extras(catalog) if ALL in wanted.backends else named


def routes(catalog: Catalog, selected: Collection[str] = ()) -> list[str]:
    """Return all routes: each framework natively, each runtime with the authored graphs and with every exporter's.

    An exporter's graphs, and those of its variants, come with a model's parameters as inputs and, as "@const", as users ship
    them. A plugin that is broken has one route of its own name, so that its absence is seen.
    """
    left = extras(catalog) - set(selected)
    exporter_names = [name for name in _names(catalog.exporters, selected) if name not in left]
    exporters = (DRIVER_EXPORTER, *exporter_names, *(name + CONSTANTS for name in exporter_names))
    backends = {name: backend for name, backend in catalog.backends.items() if name not in left}
    names = _names({n: b for n, b in backends.items() if b.kind == "framework"}, selected)
    runtimes = _names({n: b for n, b in backends.items() if b.kind == "runtime"}, selected)
    names += [f"{exporter}+{runtime}" for runtime in runtimes for exporter in exporters]
    return names + [broken.name for broken in catalog.broken if broken.name not in catalog.backends]


def _names(offered: Mapping[str, type[Backend | Exporter]], selected: Collection[str]) -> list[str]:
    """Return each name, or those of its variants that are asked for where it has any."""
    return [
        name
        for base, component in offered.items()
        for name in ([f"{base}@{variant}" for variant in component.variants] or [base])
        if name == base or name in selected
    ]


def all_cases(catalog: Catalog, *, full: bool = False, selected: Collection[str] = ()) -> list[Case]:
    """Return every case, kernel by kernel, model by model, then experiment by experiment, those of published size where `full`.

    Kernels without a gradient, by declaration, and models without anything to differentiate have no gradient cases; exported
    graphs come in f32 and f16. Models of exported graphs and of published size come in f32, and graphs that hold their parameters
    have values alone. Experiments train in f32.
    """
    kernels = [
        Case(kernel.name, aspect, dtype, route)
        for kernel in catalog.kernels.values()
        for aspect in ASPECTS
        if aspect == "value" or kernel.differentiable
        for dtype in DTYPES
        for route in routes(catalog, selected)
    ]
    models = [
        Case(model.name, aspect, dtype, route)
        for model in catalog.models.values()
        if full or PUBLISHED not in model.name
        for aspect in ASPECTS
        if aspect == "value" or model.differentiable
        for dtype in (SHIPPED_DTYPES if PUBLISHED in model.name else DTYPES)
        for route in routes(catalog, selected)
    ]
    models = [case for case in models if _exported(case) and (_by_us(case) or case.dtype in SHIPPED_DTYPES)]
    trainings = [
        Case(experiment.name, TRAINING, TRAINED_DTYPE, route)
        for experiment in catalog.experiments.values()
        if full or PUBLISHED not in experiment.name
        for route in routes(catalog, selected)
        if not Route.of(route).constants
    ]
    return [case for case in kernels if not case.constants and _exported(case)] + models + trainings


def backends_of(results: Iterable[Result], catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Return for each result's case the backends that its numbers depend on: what computes, and what exported the graph."""
    cases = {
        result.case: Case(result.subject, "value", result.dtype, result.route) for result in results
    }  # the route decides
    return {name: tuple(sorted(catalog.workers([case]))) for name, case in cases.items()}


def _exported(case: Case) -> bool:
    """Tell whether a case is one as far as its graph is concerned."""
    return _by_us(case) or (case.dtype in EXPORTED_DTYPES and not (case.constants and case.aspect == "gradient"))


def _by_us(case: Case) -> bool:
    """Tell whether no exporter made the case's graph: it has none, or we wrote it."""
    return case.exporter in (None, DRIVER_EXPORTER)


def select(cases: Sequence[Case], wanted: Selection) -> list[Case]:
    """Return the cases that match: any pattern (glob on the id), and every other filter.

    Raises UsageError naming the word that matches nothing, with near matches, or when all words together select nothing.
    """
    if not cases:
        raise UsageError(
            'no backend is installed: pip install "actconform[torch]", "actconform[keras]" or "actconform[ort]"'
        )
    _check_names("backend", wanted.backends, {ALL, *(case.backend for case in cases)})
    _check_names("route", wanted.routes, {case.route for case in cases})
    _check_names("aspect", wanted.aspects, {*ASPECTS, TRAINING})
    _check_names("dtype", wanted.dtypes, set(DTYPES))
    ids = [case.id for case in cases]
    for pattern in wanted.patterns:
        if not any(fnmatchcase(id_, pattern) for id_ in ids):
            left_out = PUBLISHED in pattern and not any(PUBLISHED in case.subject for case in cases)
            hint = f"; {PUBLISHED} is there with --full" if left_out else _near_case(pattern, cases)
            raise UsageError(f"pattern {pattern!r} matches no case{hint}\n{_PATTERN_HELP}")
    chosen = [case for case in cases if _chosen(case, wanted)]
    if not chosen:
        raise UsageError("the options together select no case: each matches something, but nothing matches them all")
    return chosen


_PATTERN_HELP = (
    "a pattern is a glob on SUBJECT/ASPECT/DTYPE/ROUTE, for example 'gelu-*/value/f32/*'; see `actconform list cases`"
)


def _chosen(case: Case, wanted: Selection) -> bool:
    return (
        (not wanted.patterns or any(fnmatchcase(case.id, pattern) for pattern in wanted.patterns))
        and (not wanted.backends or ALL in wanted.backends or case.backend in wanted.backends)
        and (not wanted.routes or case.route in wanted.routes)
        and (not wanted.aspects or case.aspect in wanted.aspects)
        and (not wanted.dtypes or case.dtype in wanted.dtypes)
    )


def _check_names(noun: str, words: Sequence[str], names: set[str]) -> None:
    for word in words:
        if word not in names:
            raise UsageError(f"unknown {noun} {word!r}{near(word, sorted(names))}")


def _near_case(pattern: str, cases: Sequence[Case]) -> str:
    parts = pattern.rstrip("/").split("/")
    vocabulary: list[set[str]] = [
        {case.subject for case in cases},
        {*ASPECTS, TRAINING},
        set(DTYPES),
        {case.route for case in cases},
    ]
    hints = [
        f"{part!r}{_beginning(part, names) or near(part, sorted(names))}"
        for part, names in zip(parts, vocabulary, strict=False)
        if not any(fnmatchcase(name, part) for name in names)
    ]
    if hints:
        return f": nothing is called {', '.join(hints)}"
    return f"; did you mean {pattern.rstrip('/')}/*" if len(parts) < len(vocabulary) else ""


def _beginning(part: str, names: set[str]) -> str:
    several = part and sum(name.startswith(part) for name in names) > 1
    return f"; did you mean '{part}*'?" if several else ""
