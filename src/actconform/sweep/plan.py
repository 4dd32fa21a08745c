"""Which kernels are swept on which routes, and the graph of each."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from actconform.errors import Unsupported, UsageError, near
from actconform.exhaustive.measure import SweptFunction
from actconform.exhaustive.patterns import CHUNKS, swept_inputs
from actconform.run.export_cache import Exports, cache_folder
from actconform.run.select import routes
from actconform.run.subject import subject_of
from actconform.sweep.row_sample import is_sampled, row_vectors, sample_in_words
from actconform.types import ASPECTS, DRIVER_EXPORTER, Case
from actconform.workers.from_settings import configured_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.exhaustive.patterns import Extent
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.sweep.request import SweepRequest
    from actconform.types import Artifact, Aspect, Kernel

DTYPE = "f32"


class SweepPlan(NamedTuple):
    """The cases to be swept, in words what samples there are of kernels of rows or two inputs, and the kernels that a glob matches and that cannot be swept."""

    cases: list[Case]
    samples: dict[tuple[str, Aspect], str]
    left_out: list[str]

    def notes(self, refused: Sequence[str]) -> list[str]:
        """Return what is said below the table, with what backends refused."""
        samples = [
            f"{_function(*of)} is swept at a sample, whatever the range: {words}" for of, words in self.samples.items()
        ]
        return [*samples, *(f"not swept: {words}" for words in (*self.left_out, *refused))]


def sweep_plan(catalog: Catalog, request: SweepRequest) -> SweepPlan:
    """Return what is asked for. Raises UsageError for names that match nothing, with near matches, for what cannot be swept
    where nothing else is asked for, and for numbers that make no sweep.
    """
    if request.workers < 1:
        raise UsageError(f"--workers {request.workers}: expected at least 1")
    if not request.routes:
        raise UsageError("no --route: name what computes, such as --route torch or --route authored+ort-cpu")
    offered = routes(catalog, [part for route in request.routes for part in route.split("+")])
    for route in request.routes:
        if route not in offered:
            raise UsageError(f"unknown route {route!r}{near(route, sorted(offered))}")
    cases: list[Case] = []
    samples: dict[tuple[str, Aspect], str] = {}
    left_out: dict[str, None] = {}
    aspects = [aspect for aspect in ASPECTS if aspect in request.aspects]
    for kernel, aspect in product(_kernels(catalog, request.patterns), aspects):
        try:
            words = _sample_in_words(kernel, aspect)
        except Unsupported as error:
            left_out[str(error)] = None
            continue
        if words:
            samples[kernel.name, aspect] = words
        cases += [Case(kernel.name, aspect, DTYPE, route) for route in request.routes]
    if not cases:
        raise UsageError("nothing to sweep:\n" + "\n".join(left_out))
    return SweepPlan(cases, samples, list(left_out))


def _function(kernel: str, aspect: Aspect) -> str:
    return kernel if aspect == "value" else f"the gradient of {kernel}"


def _sample_in_words(kernel: Kernel, aspect: Aspect) -> str:
    """Return the sample at which a kernel is swept, "" where that is all numbers. Raises Unsupported where it cannot be swept."""
    if is_sampled(kernel):
        return sample_in_words(kernel, aspect)
    SweptFunction.of(kernel, aspect)
    return ""


def inputs_of_sweep(kernel: Kernel, aspect: Aspect, extent: Extent) -> int:
    """Return how many inputs the sweep of a kernel has, of a sampled one how many outputs."""
    if is_sampled(kernel):
        vectors = row_vectors(kernel, aspect, 0).vectors
        return CHUNKS * sum(array.size for vector in vectors for array in vector.truth.values())
    return sum(swept_inputs(chunk, extent) for chunk in range(CHUNKS))


def _kernels(catalog: Catalog, patterns: tuple[str, ...]) -> list[Kernel]:
    chosen: dict[str, Kernel] = {}
    for pattern in patterns or ("*",):
        names = [name for name in catalog.kernels if fnmatchcase(name, pattern)]
        if not names:
            raise UsageError(f"unknown kernel {pattern!r}{near(pattern, sorted(catalog.kernels))}")
        chosen |= {name: catalog.kernels[name] for name in names}
    return list(chosen.values())


def swept_graph(catalog: Catalog, case: Case, config: Config) -> Artifact | None:
    """Return the graph that the route of a case runs: authored, or exported in its framework's worker; of a gradient the extended one.

    None on a native route. Raises Unsupported, Unavailable, ExportError and WorkerError.
    """
    if case.exporter is None:
        return None
    kernel = catalog.kernels[case.subject]
    line = subject_of(kernel)
    exporter = catalog.exporter(case)
    if case.exporter == DRIVER_EXPORTER or exporter is None:
        graph = line.author(case.dtype)
    else:
        with configured_worker(exporter.source, config) as worker:
            exports = Exports(worker, cache_folder())
            try:
                graph = exports.artifact(kernel, case.dtype, case.exporter, config.timeout)
            finally:
                exports.close()
    return line.graph_for(graph, case.aspect, ["y"])
