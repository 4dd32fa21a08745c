"""`actconform bisect`: the first layer at which one route of a user's model parts from another."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actconform.checking.model_route import bisection, parsed_route
from actconform.checking.session import CheckRequest, FailedExport, check_graphs
from actconform.cli import _options
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.check_screen import print_first_fault
from actconform.report.terminal.console import open_console
from actconform.say import say
from actconform.settings import read_config
from actconform.text import one_line
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from actconform.checking.result import CheckResult


@click.command("bisect")
@click.argument("first")
@click.argument("second")
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="Inputs: .npz, .npy, a folder of them, test_data_set_0."
)
@_options.drawing_seed
@click.option("--train-mode", "train_mode", is_flag=True, help="Compare in training mode.")
@_options.trust
@click.option("--max-memory", type=click.FloatRange(min=0.01), help="In GiB (default: what the machine has available).")
@_options.call_timeout
@_options.config
def command(first: str, second: str, config_path: Path | None, **wishes: Any) -> int:
    """Name the first layer at which SECOND parts from FIRST by more than rounding explains.

    Each is a route of a model: SOURCE alone (a framework, or a graph in float64), SOURCE+RUNTIME, SOURCE+EXPORTER or SOURCE+EXPORTER+RUNTIME, as in
    net:make net:make+torch-dynamo+ort-cpu, or model.onnx+ort-cpu@1.26 model.onnx+ort-cpu. Both are held against the graph in float64, so the one
    that is at fault is named.

    Exit code 0: they do not part; 1: they do; 2: wrong usage.
    """
    config = read_config(config_path)
    catalog = configured(load_plugins(), config)
    routes = parsed_route(first, catalog), parsed_route(second, catalog)
    if routes[0] == routes[1]:
        raise UsageError("both routes are the same: name two")
    with tempfile.TemporaryDirectory(prefix="actconform-") as folder:
        request = bisection(*routes, CheckRequest(source="", out=Path(folder), **wishes))
        with CheckProgress(open_console(to_stderr=True)) as progress:
            graphs = check_graphs(request, catalog, config, progress, lambda text: say(text, err=True))
            with closing(graphs):
                result = _only(list(graphs))
    say(f"{one_line(first)}  ->  {one_line(second)}")
    print_first_fault(open_console(), result)
    return 0 if result.explained else 1


def _only(graphs: list[Any]) -> CheckResult:
    """Return the result of the one graph; raise UsageError where its exporter made none."""
    for graph in graphs:
        if isinstance(graph, FailedExport):
            raise UsageError(f"{graph.exporter} makes no graph of it: {graph.reason}")
    result: CheckResult = graphs[0].result
    return result
