"""Faults in ONNX Runtime, injected into one node of small models: each is found at that node, with the right blame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from small_models import MODELS, checked

from actconform.checking.runs import RuntimeRuns
from actconform.plugin.loader import load_plugins
from actconform.settings import Config
from actconform.workers.from_settings import configured_worker
from actconform_faulty.model_runtime import FaultyModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.result import CheckResult

# A model, a fault, and the tensor whose node has it: the first one that can.
FAULTS = [
    ("conv", "weight-f16", "c"),
    ("conv", "bias-element", "c"),
    ("conv", "bias-f16", "c"),
    ("conv", "pads-shifted", "c"),
    ("conv", "epsilon", "b"),
    ("conv", "relu-leaky", "r"),
    ("conv", "ceil-mode", "p"),
    ("conv", "resize-linear", "z"),
    ("conv", "resize-corners", "z"),
    ("conv", "alpha", "h"),
    ("conv", "clip-bound", "q"),
    ("conv", "sigmoid-hard", "s"),
    ("conv", "pad-sides", "e"),
    ("encoder", "weight-f16", "p"),
    ("encoder", "weight-transposed", "p"),
    ("encoder", "product-f16", "p"),
    ("encoder", "through-f16", "p"),
    ("encoder", "bias-f16", "a"),
    ("encoder", "bias-element", "a"),
    ("encoder", "axis", "mean"),
    ("encoder", "epsilon-written-out", "shifted"),
    ("encoder", "gelu-tanh", "e"),
    ("encoder", "epsilon", "l"),
    ("encoder", "tanh-softsign", "t"),
    ("lstm", "weight-f16", "states"),
    ("lstm", "gates-swapped", "states"),
    ("lstm", "recurrent-bias", "states"),
    ("quantized", "scale", "q"),
    ("quantized", "zero-point", "i"),
    ("flow", "tanh-softsign", "chosen"),
]
# What ONNX Runtime fuses or rearranges, with the fault only where it does.
OF_THE_OPTIMIZER = [
    ("conv", "epsilon", "b"),  # folded into the convolution
    ("conv", "weight-f16", "c"),
    ("conv", "relu-leaky", "r"),
    ("encoder", "bias-f16", "a"),
    ("encoder", "gelu-tanh", "e"),
    ("encoder", "epsilon-written-out", "shifted"),
    ("lstm", "recurrent-bias", "states"),
]


@pytest.fixture(scope="module")
def with_fault() -> Iterator[Callable[[str], RuntimeRuns]]:
    """Give ONNX Runtime with a fault: all of them run in one process."""
    load_plugins()
    with configured_worker(FaultyModel.name, Config()) as worker:
        yield lambda fault: RuntimeRuns(f"{FaultyModel.name}@{fault}", FaultyModel, worker, timeout=60.0)


def fault_nodes(result: CheckResult) -> tuple[str, tuple[str, ...]]:
    """Return the tensor at which a fault was found, and the nodes that its verdict spans."""
    (runtime,) = result.runtimes
    fault = runtime.fault
    assert fault is not None, runtime
    assert fault.tensor is not None, fault
    return fault.tensor.tensor, fault.segment


@pytest.mark.parametrize("name", MODELS)
def test_a_model_as_it_is_is_explained_with_every_node_judged(with_fault, name):
    model, inputs = MODELS[name]
    result = checked(model, inputs, with_fault(""))
    (runtime,) = result.runtimes
    assert runtime.status == "explained", runtime.fault or runtime.reason
    assert runtime.fault is None
    assert [level.unjudged for level in runtime.levels] == [[]] * 3
    assert not any(output.unjudged for output in runtime.outputs)
    assert result.explained


@pytest.mark.parametrize(("name", "fault", "tensor"), FAULTS)
def test_a_fault_is_found_at_its_node(with_fault, name, fault, tensor):
    model, inputs = MODELS[name]
    result = checked(model, inputs, with_fault(fault))
    (runtime,) = result.runtimes
    assert runtime.status == "not explained", runtime.reason
    assert runtime.fault.blame == "runtime"
    found, segment = fault_nodes(result)
    assert found == tensor or (name == "flow" and found.endswith("/t"))
    assert len(segment) == 1
    assert not result.explained


@pytest.mark.parametrize(("name", "fault", "tensor"), OF_THE_OPTIMIZER)
def test_a_fault_of_the_optimizer_is_blamed_on_it(with_fault, name, fault, tensor):
    model, inputs = MODELS[name]
    result = checked(model, inputs, with_fault(f"{fault}-optimized"))
    (runtime,) = result.runtimes
    assert runtime.status == "not explained", runtime.reason
    assert runtime.fault.blame == "runtime:optimizer"
    _found, segment = fault_nodes(result)
    assert f"{_operator(model, tensor)}:{tensor}" in segment
    assert any("without optimization" in sentence for sentence in runtime.fault.evidence)


def _operator(model, tensor):
    return next(node.op_type for node in model.graph.node if tensor in node.output)
