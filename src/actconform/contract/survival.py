"""Whether what a runtime says to survive its optimization does: marked as outputs, these tensors must change no other output."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import ModelProto, ValueInfoProto, parser

from actconform.types import DRIVER_EXPORTER, Artifact, Case
from actconform.workers.protocol import Call, Job
from actconform.workers.session import same_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.contract.evidence import CaseRecord

NAME = "contract-survival"
# Something to fuse for every optimizer: a bias, an activation, x * sigmoid(x), a constant that can be folded.
GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
survival (float[2, 4] x, float[4, 4] w, float[4] c) => (float[2, 4] y) <float[1] third = {0.333333}, float[1] k = {1.7}> {
    product = MatMul(x, w)  biased = Add(product, c)  positive = Relu(biased)  again = MatMul(positive, w)
    factor = Mul(third, k)  scaled = Mul(again, factor)  gate = Sigmoid(scaled)  gated = Mul(scaled, gate)  y = Softmax<axis = 1>(gated)
}
"""


class Survival(NamedTuple):
    """The breaches, in words; or why there is nothing to check."""

    breaches: tuple[str, ...] = ()
    not_applicable: str = ""


def check_survival(run: Callable[[Job], CaseRecord], backend: str, levels: Sequence[str]) -> Survival:
    """Return what is wrong with the surviving tensors that the backend names, by default and at each of its levels.

    `run` has the backend do a job.
    """
    model = parser.parse_model(GRAPH)
    breaches: list[str] = []
    for level in ("", *levels):
        asked = run(_job(backend, model, level, surviving=True))
        if asked.refused is not None:
            return Survival(not_applicable=asked.refused)
        breaches += [f"{_at(level)}{breach}" for breach in _breaches(run, backend, model, level, asked)]
    return Survival(tuple(breaches))


def _breaches(
    run: Callable[[Job], CaseRecord], backend: str, model: ModelProto, level: str, asked: CaseRecord
) -> Iterator[str]:
    if asked.outcome is None or asked.outcome.failure or asked.outcome.surviving is None:
        failure = asked.outcome.failure if asked.outcome else None
        yield f"surviving_tensors raised {failure.message}" if failure else asked.died or "gave no names"
        return
    names = asked.outcome.surviving
    tensors = {name for node in model.graph.node for name in node.output}
    if unknown := sorted(set(names) - tensors):
        yield f"{', '.join(unknown)} survives, and no node of the graph gives a tensor of that name"
        return
    marked = ModelProto()
    marked.CopyFrom(model)
    marked.graph.output.extend(ValueInfoProto(name=name) for name in names if name != "y")
    plain, with_marks = (run(_job(backend, graph, level)) for graph in (model, marked))
    if plain.outcome is None or plain.outcome.failure:
        return
    if with_marks.outcome is None or with_marks.outcome.failure:
        failure = with_marks.outcome.failure if with_marks.outcome else None
        yield f"with {', '.join(names)} marked as outputs: {failure.message if failure else with_marks.died}"
    elif not same_numbers(plain.outcome.outputs[0].get("y"), with_marks.outcome.outputs[0].get("y")):
        yield f"y has other bits where {', '.join(names)} are marked as outputs"


def _job(backend: str, model: ModelProto, level: str, *, surviving: bool = False) -> Job:
    ramp = np.linspace(-1.3, 2.1, 28, dtype=np.float32)
    inputs = {"x": ramp[:8].reshape(2, 4), "w": ramp[8:24].reshape(4, 4), "c": ramp[24:]}
    case = Case(NAME, "value", "f32", f"{DRIVER_EXPORTER}+{backend}")
    artifact = Artifact(model.SerializeToString(), 17, NAME)
    return Job(case, artifact, [] if surviving else [Call("", inputs)], level, surviving=surviving)


def _at(level: str) -> str:
    return f"level {level}: " if level else ""
