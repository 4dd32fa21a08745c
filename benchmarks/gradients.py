"""How long gradients of graphs take: to write them, and to run them beside torch's own, in workers, in turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from actconform.catalog.models.zoo import networks
from actconform.onnx.author.model import author_model
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.gradient_artifact import vjp_artifact, with_cotangents
from actconform.run.layer_values import call_with_inputs_of, subgraph_to
from actconform.testdata.model_vectors import generate_model
from actconform.types import Case
from actconform.types.model import LOSS
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.model import Model

    Line = tuple[str, float, float]

CHAIN = 5000
TIMED = ("mlp-relu@published", "image-cnn-sigmoid@published", "autoencoder-relu@published", "attention-block@published")
ROUNDS = 5
CALLS = 8  # in a job, after which the first is made once more
TIMEOUT = 120.0


def transformations() -> Iterator[Line]:
    """Seconds to append gradients: of the slowest reference model, and of a chain of 5,000 nodes."""
    slowest = max((_seconds(model), model.name) for model in networks())
    yield f"gradients of the slowest reference model, in s ({slowest[1]})", slowest[0], 0.05
    chain = _chain(CHAIN)
    started = time.perf_counter()
    add_gradients(chain, ["x"])
    yield f"gradients of a chain of {CHAIN:,} nodes, in s", time.perf_counter() - started, 2.0


def forward_and_backward() -> Iterator[Line]:
    """Forward and backward in ONNX Runtime as a multiple of torch's eager, on the published models, one thread each."""
    with Worker("torch") as torch, Worker("ort-cpu") as ort:
        for name in TIMED:
            model = next(model for model in networks() if model.name == name)
            jobs = (torch, _job(model, "torch")), (ort, _job(model, "authored+ort-cpu"))
            best = [float("inf")] * 2
            for _ in range(ROUNDS):
                for index, (worker, job) in enumerate(jobs):
                    best[index] = min(best[index], worker.run(job, TIMEOUT).timings["run"] / (CALLS + 1))
            said = f"{1e3 * best[1]:.2f} ms against {1e3 * best[0]:.2f} ms"
            yield f"forward + backward of {name}, ort-cpu / torch ({said})", best[1] / best[0], 2.2


def _job(model: Model, route: str) -> Job:
    case = Case(model.name, "gradient", "f32", route)
    (vector,) = generate_model(model, "gradient", "f32", constants=False, regimes=["ordinary"]).vectors
    call = Call(vector.regime, vector.inputs, vector.cotangents)
    if case.exporter is None:
        return Job(case, None, [call] * CALLS)
    graph = vjp_artifact(subgraph_to(author_model(model, "f32"), [LOSS]), model)
    return Job(
        case,
        graph,
        [call_with_inputs_of(Call(call.regime, with_cotangents(call.inputs, call.cotangents)), graph)] * CALLS,
    )


def _seconds(model: Model) -> float:
    graph = onnx.load_from_string(subgraph_to(author_model(model, "f32"), [LOSS]).model)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        add_gradients(graph, list(model.differentiable), outputs=[LOSS], keep_outputs=False)
        best = min(best, time.perf_counter() - started)
    return best


def _chain(length: int) -> onnx.ModelProto:
    names = ["x", *(f"t{number}" for number in range(1, length)), "y"]
    nodes = [helper.make_node(("Tanh", "Neg")[n % 2], [names[n]], [names[n + 1]]) for n in range(length)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
