"""A route of a user's model: SOURCE, SOURCE+RUNTIME, SOURCE+EXPORTER or SOURCE+EXPORTER+RUNTIME."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.open_runtime import runtime_backend
from actconform.errors import UsageError, near
from actconform.text import one_line

if TYPE_CHECKING:
    from actconform.checking.session import CheckRequest
    from actconform.plugin.loader import Catalog

MOST_STAGES = 2  # behind the source: an exporter and a runtime


class ModelRoute(NamedTuple):
    """What computes a user's model."""

    source: str
    """As `check` takes it."""
    exporter: str = ""
    runtime: str = ""
    """"" for the framework itself, or for the graph in float64."""

    def __str__(self) -> str:
        return "+".join(filter(None, self))


def parsed_route(text: str, catalog: Catalog) -> ModelRoute:
    """Return the route that `text` names; a file whose name has a "+" is a source.

    Raises UsageError where a part behind the source is neither an exporter nor a runtime.
    """
    source, stages = text, list[str]()
    while "+" in source and not Path(source).exists() and len(stages) < MOST_STAGES:
        source, _, stage = source.rpartition("+")
        stages.insert(0, stage)
    exporter = runtime = ""
    for stage in stages:
        if stage in catalog.exporters and not exporter and not runtime:
            exporter = stage
        elif runtime:
            raise UsageError(
                f"{one_line(text)}: two runtimes; expected SOURCE, SOURCE+EXPORTER or SOURCE+EXPORTER+RUNTIME"
            )
        else:
            _expect_runtime(text, stage, catalog)
            runtime = stage
    return ModelRoute(source, exporter, runtime)


def _expect_runtime(text: str, stage: str, catalog: Catalog) -> None:
    try:
        runtime_backend(stage, catalog)
    except UsageError:
        names = catalog.backend_names("runtime")
        raise UsageError(
            f"{one_line(text)}: {one_line(stage)!r} is neither an exporter nor a runtime{near(stage, [*names, *catalog.exporters])}"
        ) from None


def bisection(first: ModelRoute, second: ModelRoute, request: CheckRequest) -> CheckRequest:
    """Return the check that tells where `second` parts from `first`: on the graph of `second`, else on that of `first`."""
    runtimes = tuple(dict.fromkeys(filter(None, (first.runtime, second.runtime))))
    with_graph, without_graph = (second, first) if second.exporter or _is_file(second.source) else (first, second)
    exporters = (with_graph.exporter,) if with_graph.exporter else ()
    against = (without_graph.source,) if without_graph.source != with_graph.source else ()
    return request._replace(source=with_graph.source, against=against, exporters=exporters, runtimes=runtimes)


def _is_file(source: str) -> bool:
    return Path(source).is_file() and Path(source).suffix == ".onnx"
