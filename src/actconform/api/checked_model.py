"""What `actconform.check` returns: the verdict, the first fault, and the text of the command's screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from actconform.report.check.summary import check_verdict, name_shown
from actconform.report.terminal.check_screen import check_lines
from actconform.text import one_line

if TYPE_CHECKING:
    from actconform.checking.result import CheckResult, ModelFault, RuntimeCheck
    from actconform.checking.session import FailedExport


class FirstFault(NamedTuple):
    """The first thing that rounding does not explain, and where it was seen."""

    graph: CheckResult
    column: RuntimeCheck
    """The runtime or framework."""
    fault: ModelFault
    """With `blame`, `node`, `layer` and `evidence`."""

    def __repr__(self) -> str:
        fault = self.fault
        return f"<{fault.blame} at {fault.layer or fault.node!r} ({fault.op_type}) on {self.column.name}: {'; '.join(fault.evidence[:1])}>"


@dataclass(frozen=True)
class CheckedModel:
    """A check of one model: true where rounding explains every answer; `str` gives what the command prints."""

    graphs: tuple[CheckResult, ...]
    """The result of each graph: of one for an ONNX file, of one for each exporter for a trained model. What `check.json` holds."""
    failed: tuple[FailedExport, ...] = ()
    """Exporters that made no graph that could be checked, and why."""
    wrote: tuple[str, ...] = ()
    """Files and folders."""

    @property
    def explained(self) -> bool:
        """Whether a graph was checked, and rounding explains every answer on each."""
        return bool(self.graphs) and all(graph.explained for graph in self.graphs)

    @property
    def result(self) -> CheckResult:
        """The result of the first graph. Raises LookupError, with the reasons, where there is none."""
        if not self.graphs:
            reasons = "; ".join(f"{failed.exporter}: {one_line(failed.reason, 400)}" for failed in self.failed)
            raise LookupError(f"no graph was checked: {reasons}")
        return self.graphs[0]

    @property
    def first(self) -> FirstFault | None:
        """The first fault; None where there is none."""
        faults = (
            FirstFault(graph, column, column.fault)
            for graph in self.graphs
            for column in graph.runtimes
            if column.fault is not None
        )
        return next(faults, None)

    def __bool__(self) -> bool:
        return self.explained

    def __str__(self) -> str:
        """Return the text of the screen: each graph, then a line for each export where there are several."""
        parts = []
        for graph in self.graphs:
            lines = check_lines(graph, wrote=self.wrote if graph is self.graphs[-1] else ())
            heading = [f"Exported by {name_shown(graph.exporter)}", ""] if graph.exporter else []
            parts.append("\n".join([*heading, *(line.plain for line in lines)]))
        if self.failed or len(self.graphs) > 1:
            verdicts = [f"{name_shown(graph.exporter or graph.model)}: {check_verdict(graph)}" for graph in self.graphs]
            refused = [
                f"{name_shown(each.exporter)}: not exported: {one_line(each.reason, 400)}" for each in self.failed
            ]
            parts.append("\n".join([*verdicts, *refused]))
        return "\n\n".join(parts)
