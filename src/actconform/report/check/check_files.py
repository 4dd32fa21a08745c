"""The files of a check in a folder: check.json, the inputs that were drawn, the page, the overlay; and the smallest part that shows a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.inputs import write_sample
from actconform.report.check.check_json import write_json
from actconform.report.check.node_data import NODE_DATA, write_node_data
from actconform.report.check.page import PAGE, write_page
from actconform.report.issue.from_check import MINIMAL, attach

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.checking.session import CheckedGraph


def write_check(graph: CheckedGraph, folder: Path, *, inputs: bool, html: bool, minimize: bool) -> list[str]:
    """Write what a check found, and return the paths; the runtimes of the graph are still open.

    With `inputs` its samples are written as test_data_set_K, with `html` the page and node_data.json, with `minimize` the smallest part of the
    model that shows the first fault of a runtime, where there is one. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wrote = [write_json(graph.result, folder)]
    for k, sample in enumerate(graph.samples if inputs else ()):
        place = folder / f"test_data_set_{k}"
        write_sample(place, sample.inputs, graph.source)
        wrote.append(place)
    if html:
        write_page(graph.result, folder)
        write_node_data(graph.result, folder)
        wrote += [folder / PAGE, folder / NODE_DATA]
    columns = {runtime.name: runtime for runtime in graph.result.runtimes}
    faulty = [(runs, columns[runs.name].fault) for runs in graph.runtimes if runs.name in columns]
    for runs, fault in [pair for pair in faulty if pair[1] is not None][:1] if minimize else ():
        assert fault is not None
        attach(graph.result, fault, graph.samples[fault.sample], runs, folder)
        wrote.append(folder / MINIMAL)
    return [str(path) for path in wrote]
