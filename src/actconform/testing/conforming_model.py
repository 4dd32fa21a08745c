"""A test's assertion that a model computes as rounding allows, with a message that says what is wrong, whose fault it is and what to do."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.api.checked_model import CheckedModel
    from actconform.api.options import CheckOptions
    from actconform.checking.result import CheckResult, ModelFault, RuntimeCheck

COLUMNS_TOLD = 3  # that do not conform, in full
EVIDENCE_TOLD = 4
PAGE = "index.html"
RENAMED = {"ranges": "range"}  # options that the command calls otherwise


_REPORT: ContextVar[tuple[Callable[[], Path], list[Path]] | None] = ContextVar("report", default=None)


@contextmanager
def written_to(folder: Path) -> Iterator[list[Path]]:
    """Have assertions that name no folder write to this one, the second and later ones to FOLDER-2, FOLDER-3; yields the pages as they come."""
    pages: list[Path] = []
    numbers = count(1)

    def next_folder() -> Path:
        number = next(numbers)
        return folder if number == 1 else folder.with_name(f"{folder.name}-{number}")

    token = _REPORT.set((next_folder, pages))
    try:
        yield pages
    finally:
        _REPORT.reset(token)


def assert_conforms(
    model: Any,
    inputs: Any = None,
    routes: str | Sequence[str] = ("ort-cpu",),
    against: Any = None,
    *,
    out: str | Path | None = None,
    **options: Unpack[CheckOptions],
) -> CheckedModel:
    """Raise AssertionError unless rounding explains every answer of a model on every route; return the check otherwise.

    `routes` are runtimes ("ort-cpu", "openvino"), or for a trained model exporter and runtime ("torch-dynamo+ort-cpu"), of which a runtime alone
    stands for every exporter that takes the model. `model`, `inputs`, `against` and `options` are those of `actconform.check`. A
    route that is not there, or that refuses the model, does not conform.

    The message names the layer, by how much it is off, whose fault it is with the evidence, and how to get a page about it. With `out` page,
    inputs and results are written there. Raises UsageError for what the user must change. Needs no test framework.
    """
    __tracebackhide__ = True
    from actconform.api.check import check

    report = _REPORT.get()
    if out is None and report is not None:
        out = report[0]()
    groups = _by_exporter([routes] if isinstance(routes, str) else routes)
    checks = []
    for exporter, runtimes in groups.items():
        routed: CheckOptions = {**options, "runtimes": runtimes, "exporters": (exporter,) if exporter else ()}
        folder = out if out is None or len(groups) == 1 else Path(out) / (exporter or "all")
        other_models = () if against is None else against
        checks.append(check(model, against=other_models, inputs=inputs, out=folder, html=out is not None, **routed))
    if report is not None:
        report[1].extend(Path(path) for checked in checks for path in checked.wrote if Path(path).name == PAGE)
    if all(checks):
        return checks[0]
    failed = next(checked for checked in checks if not checked)
    command = _command(model, groups, {"against": against, "inputs": inputs, **options})
    raise AssertionError("\n".join([*_wrong_columns(failed), _way_to_page(command, failed)]))


def _by_exporter(routes: Sequence[str]) -> dict[str, list[str]]:
    """Return the runtimes of the routes by exporter, "" for a runtime alone."""
    groups: dict[str, list[str]] = {}
    for route in routes:
        exporter, _, runtime = route.rpartition("+")
        groups.setdefault(exporter, []).append(runtime)
    return groups


def _wrong_columns(checked: CheckedModel) -> Iterator[str]:
    """Yield what is wrong: a line for each column that does not conform, the first of them in full."""
    from actconform.report.check.summary import name_shown
    from actconform.text import one_line

    wrong = [(graph, column) for graph in checked.graphs for column in graph.runtimes if column.status != "explained"]
    for graph, column in wrong[:COLUMNS_TOLD]:
        yield from _of_column(graph, column)
    if len(wrong) > COLUMNS_TOLD:
        yield f"and {len(wrong) - COLUMNS_TOLD} more do not conform: {', '.join(name_shown(column.name) for _, column in wrong[COLUMNS_TOLD:])}"
    if not checked.graphs:
        yield "no graph was made that could be checked"
    for failed in checked.failed:
        yield f"{name_shown(failed.exporter)} made no graph: {one_line(failed.reason, 400)}"


def _of_column(graph: CheckResult, column: RuntimeCheck) -> Iterator[str]:
    from actconform.report.check.summary import decisions, name_shown, output_words, worst_outputs
    from actconform.text import one_line

    maker = f" made by {graph.exporter}" if graph.exporter else ""
    if column.status not in ("not explained", "at fault"):
        yield f"{name_shown(graph.model)}{maker} on {name_shown(column.name)}: {column.status}: {one_line(column.reason, 400)}"
        return
    by_itself = column.status == "at fault"
    wrong = "is at fault as it is written" if by_itself else f"does not conform on {name_shown(column.name)}"
    yield f"{name_shown(graph.model)}{maker} {wrong}"
    if column.fault is not None:
        yield from _of_fault(graph, column.fault)
    if column.mutated:
        yield f"  it changed its inputs in place: {', '.join(map(name_shown, column.mutated))}"
    for output in worst_outputs(column)[:COLUMNS_TOLD]:
        alike, rows = decisions(column, output.name)
        top = f", top-1 agrees {alike:,}/{rows:,}" if rows else ""
        yield f"  output {name_shown(output.name)}: {output_words(output)}{top}"


def _of_fault(graph: CheckResult, fault: ModelFault) -> Iterator[str]:
    from actconform.report.check.summary import BLAME_MEANS, fault_place, fault_sentence, name_shown
    from actconform.text import one_line

    several = len(graph.samples) > 1 and not fault.words
    sample = f" (sample {fault.sample + 1} of {len(graph.samples)})" if several else ""
    yield f"  first: {fault_place(fault)}: {fault_sentence(fault)}{sample}"
    if fault.layer:
        yield f"  trained layer: {name_shown(fault.layer)}"
    if fault.source:
        yield f"  source line: {one_line(fault.source, 400)}"
    means = BLAME_MEANS.get(fault.blame, "")
    yield f"  blame: {fault.blame}{f': {means}' if means else ''}"
    for sentence in fault.evidence[:EVIDENCE_TOLD]:
        yield f"    - {one_line(sentence, 400)}"
    if fault.cause:
        yield f"  known cause: {fault.cause}"


def _way_to_page(command: str, checked: CheckedModel) -> str:
    """Return how to see every layer: the page that was written, the command that writes one, or what to give for it."""
    pages = [path for path in checked.wrote if Path(path).name == PAGE]
    if pages:
        return f"  page: {pages[0]}"
    return "  a page with every layer: " + (command or 'give assert_conforms(..., out="FOLDER")')


def _command(model: Any, groups: dict[str, list[str]], options: dict[str, Any]) -> str:
    """Return the command that does the same; "" where something of it is in memory alone."""
    words = ["actconform", "check", model]
    for name, value in options.items():
        option = "--" + RENAMED.get(name, name).replace("_", "-")
        for each in value if isinstance(value, tuple | list) else [value]:
            if each is not None and each is not False:
                words += [option] if each is True else [option, each]
    for exporter, runtimes in groups.items():
        words += ["--exporter", exporter] if exporter else []
        words += [word for runtime in runtimes for word in ("--runtime", runtime)]
    if not all(isinstance(word, str | Path | int | float) for word in words):
        return ""
    return shlex.join([*map(str, words), "--html"])
