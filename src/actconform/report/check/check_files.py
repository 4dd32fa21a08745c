"""The files of a check in a folder: check.json, the inputs that were drawn, the page, the overlay; and the smallest part that shows a fault."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from actconform.checking.agreement import write_worst
from actconform.checking.inputs import write_sample
from actconform.report.check.check_json import CHECK, write_json
from actconform.report.check.node_data import NODE_DATA, write_node_data
from actconform.report.check.page import PAGE, write_page
from actconform.report.issue.exported_layer import attach_exporter_fault, exporter_fault
from actconform.report.issue.from_check import MINIMAL, MINIMAL_EXPORTER, attach

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actconform.checking.session import CheckedGraph

WORST = "worst"


def check_files(graph: CheckedGraph, folder: Path, *, inputs: bool, html: bool) -> dict[Path, Callable[[], object]]:
    """Return the files of a check, each with what writes it and may raise OSError, check.json first.

    With `inputs` its samples are written as test_data_set_K, with `html` the page and node_data.json; the worst samples of a data set always.
    """
    result = graph.result
    files: dict[Path, Callable[[], object]] = {folder / CHECK: lambda: _write_result(graph, folder)}
    for k, sample in enumerate(graph.samples if inputs else ()):
        place = folder / f"test_data_set_{k}"
        files[place] = partial(write_sample, place, sample.inputs, graph.source)
    if html:
        files[folder / PAGE] = lambda: write_page(result, folder)
        files[folder / NODE_DATA] = lambda: write_node_data(result, folder)
    return files


def _write_result(graph: CheckedGraph, folder: Path) -> None:
    """Write check.json, and before it the worst samples of a data set, of which it says where they lie."""
    agreement = [write_worst(agreed, folder / WORST / agreed.agreement.actual, graph.source) for agreed in graph.agreed]
    write_json(replace(graph.result, agreement=agreement), folder)


def write_check(graph: CheckedGraph, folder: Path, *, inputs: bool, html: bool, minimize: bool) -> list[str]:
    """Write all files of a check, and return the paths; the runtimes of the graph are still open.

    With `minimize` the smallest part of the model is written too that shows the first fault of an exporter, and of a runtime, where there is one. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = check_files(graph, folder, inputs=inputs, html=html)
    for write in files.values():
        write()
    wrote = [*files, *(write_smallest(graph, folder) if minimize else ())]
    return [str(path) for path in wrote]


def write_smallest(graph: CheckedGraph, folder: Path) -> list[Path]:
    """Write what shows the first fault of an exporter, and of a runtime, alone; return the folders within `folder`. Raises OSError."""
    written = []
    of_exporter = exporter_fault(graph)
    if of_exporter is not None and attach_exporter_fault(of_exporter, folder):
        written.append(folder / MINIMAL_EXPORTER)
    columns = {runtime.name: runtime for runtime in graph.result.runtimes}
    for runs in graph.runtimes:
        fault = columns[runs.name].fault if runs.name in columns else None
        if fault is not None:
            attach(graph.result, fault, graph.samples[fault.sample], runs, folder)
            return [*written, folder / MINIMAL]
    return written
