"""Many small graphs through one runtime: in batches to its worker, one by one where a batch dies or hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.runs import RunFailure, run_failure
from actconform.errors import ProtocolError
from actconform.types import Artifact
from actconform.workers.graph_session import GraphCalls, GraphResult, off_wire, on_wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.case import SuiteCase
    from actconform.workers.graph_session import GraphAnswer, OnnxValue

BATCH = 24


class CaseAnswer(NamedTuple):
    """What a runtime gave for each data set, by output; none where there is a failure. `note` says what happened around it."""

    outputs: Sequence[Mapping[str, OnnxValue]]
    failure: RunFailure | None
    seconds: float
    note: str = ""


def answers_of(runs: RuntimeRuns, cases: Sequence[SuiteCase], batch: int = BATCH) -> Iterator[CaseAnswer]:
    """Yield the answers to the cases in their order; a case that ends the runtime's process, or hangs, costs itself alone.

    A batch has the time of one call. Where it dies or runs out of that, each of its cases has a call of its own.
    """
    for start in range(0, len(cases), batch):
        yield from _batch(runs, cases[start : start + batch])


def _batch(runs: RuntimeRuns, cases: Sequence[SuiteCase]) -> list[CaseAnswer]:
    graphs: list[GraphCalls | RunFailure] = [_graph_calls(case) for case in cases]
    sent = [graph for graph in graphs if isinstance(graph, GraphCalls)]
    names = cases[0].name if len(cases) == 1 else f"{len(cases)} cases from {cases[0].name} to {cases[-1].name}"
    result = runs.run_graphs(sent, names) if sent else GraphResult()
    if isinstance(result, RunFailure):
        if len(cases) == 1 or result.kind == "unavailable":
            return [CaseAnswer((), result, 0.0) for _ in cases]
        return _one_by_one(runs, cases, result)
    answers = iter(result.answers)
    return [
        CaseAnswer((), graph, 0.0) if isinstance(graph, RunFailure) else _case_answer(next(answers)) for graph in graphs
    ]


def _one_by_one(runs: RuntimeRuns, cases: Sequence[SuiteCase], failure: RunFailure) -> list[CaseAnswer]:
    answers = [_batch(runs, [case])[0] for case in cases]
    if all(answer.failure is None or answer.failure.kind not in ("crash", "timeout") for answer in answers):
        note = f"{runs.name}: {failure.message}; each of these cases alone was answered"
        answers[0] = answers[0]._replace(note=note)
    return answers


def _graph_calls(case: SuiteCase) -> GraphCalls | RunFailure:
    try:
        inputs = [{name: on_wire(value) for name, value in data_set.inputs.items()} for data_set in case.data_sets]
    except ProtocolError as error:
        return RunFailure("refused", f"its inputs cannot be sent: {error}")
    return GraphCalls(Artifact(case.model, case.opset, case.name), inputs)


def _case_answer(answer: GraphAnswer) -> CaseAnswer:
    if answer.failure:
        return CaseAnswer((), run_failure(answer.failure), answer.seconds)
    outputs = [{name: off_wire(wire) for name, wire in each.items()} for each in answer.outputs]
    return CaseAnswer(outputs, None, answer.seconds)
