"""A trained model whose positions lie at jumps of their buckets, beside its graph: neither is at fault for how rounding decides."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_models import Silent

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.model_check import check_model
from actconform.checking.result import SampleFacts
from actconform.checking.runs import RunFailure
from actconform.checking.source import source_of_model
from actconform.checking.trained.column import TrainedColumn
from actconform.checking.trained.names import NamedPair
from actconform.types.trained import LayerRecord, OpenedModel, RunMode, TrainedRun
from actconform.workers.protocol import TrainedResult

STEP = np.float32(0.1)
TABLE = np.random.default_rng(1).standard_normal((12, 6)).astype(np.float32)
WEIGHT = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
# 0.3 and 0.7 lie at jumps: in float32 they are 3 and 7 steps to within rounding
X = np.float32([0.25, 0.3, 0.37, 0.44, 0.51, 0.58, 0.65, 0.7, 0.79, 0.88])


class Framework:
    """x -> the row of a table for its number of steps -> last (dense); `shift` moves the steps, `scale` the dense layer."""

    name, facts = "numpy", {}

    def __init__(self, shift=0.0, scale=1.0):
        self.shift, self.scale = shift, scale

    def open(self):
        return OpenedModel(framework="numpy", about="buckets", precisions=("native", "float64"))

    def parameters(self):
        return {"table": TABLE, "last.weight": WEIGHT}

    def layers(self, inputs, mode=RunMode()):  # noqa: B008
        dtype = np.float64 if mode.precision == "float64" else np.float32
        x = inputs["x"].astype(dtype)
        rows = TABLE.astype(dtype)[np.floor(x / dtype(STEP) + dtype(self.shift)).astype(np.int64)]
        y = rows @ (WEIGHT.astype(dtype) * dtype(self.scale))
        records = [
            LayerRecord("rows", "layers.Rows", (0,), (1,), ("table",)),
            LayerRecord("last", "layers.Dense", (1,), (2,), ("last.weight",)),
        ]
        return TrainedRun(outputs={"out": y}, layers=records, tensors=[x, rows, y])

    def run(self, inputs, mode=RunMode(), *, layers=False, twice=False):  # noqa: B008
        return TrainedResult(run=self.layers(inputs, mode))

    def gradients(self, inputs, cotangents, mode=RunMode()):  # noqa: B008
        return RunFailure("refused", "none here")


def graph():
    nodes = [
        helper.make_node("Div", ["x", "step"], ["d"], "divide"),
        helper.make_node("Floor", ["d"], ["f"], "floor"),
        helper.make_node("Cast", ["f"], ["c"], "cast", to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "c"], ["r"], "gather"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "dense"),
    ]
    constants = {"step": STEP, "table": TABLE, "w": WEIGHT}
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])


def check(framework):
    samples = [CheckedSample({"x": X}, SampleFacts(origin="written down"))]
    beside = TrainedColumn(
        framework, "net:make", [NamedPair("x", "x")], [NamedPair("y", "out")], exporter="an-exporter"
    )
    result = check_model(source_of_model(graph(), "model.onnx"), samples, [], Silent(), trained=[beside])
    return result, result.runtimes[0]


def test_nobody_is_at_fault_where_float32_and_float64_decide_otherwise():
    steps, exact_steps = X / STEP, X.astype(np.float64) / np.float64(STEP)
    assert (np.floor(steps) != np.floor(exact_steps)).any()
    result, column = check(Framework())
    assert (column.status, column.fault) == ("explained", None)
    (tie,) = result.ties
    assert (tie.node, tie.op_type, tie.size) == ("floor", "Floor", 10)
    assert 1 <= tie.elements < 10
    (output,) = column.outputs
    assert (output.explained, output.tied) == (True, False)


@pytest.mark.parametrize("framework", [Framework(shift=0.3), Framework(shift=0.7), Framework(scale=1.0001)])
def test_another_step_and_another_weight_are_faults_beside_ties(framework):
    _, column = check(framework)
    assert column.status == "not explained"
    assert column.fault.blame == "exporter"


class Buckets(torch.nn.Module):
    """The relative position bias of T5, around attention that is that bias alone."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(32, 2, generator=generator))

    def forward(self, x):
        positions = torch.arange(x.shape[1])
        relative = positions[None, :] - positions[:, None]
        size = relative.abs()
        distant = 8 + (torch.log(size.float() / 8) / np.log(16) * 8).to(torch.long)
        bucket = torch.where(size < 8, size, torch.minimum(distant, torch.full_like(distant, 15)))
        bias = self.table[bucket + 16 * (relative > 0).to(torch.long)]
        return torch.einsum("ijh,bjh->bih", torch.softmax(bias, 1), x)


@pytest.mark.parametrize("dynamo", [False, True])
def test_position_buckets_as_torch_exports_them_are_explained(dynamo, tmp_path):
    model = Buckets().eval()
    x = torch.randn(2, 18, 2, generator=torch.Generator().manual_seed(1))
    lengths = {"dynamic_shapes": ({1: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"x": {1: "n"}}}
    names = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=dynamo, external_data=False, **lengths, **names)
    sample = CheckedSample({"x": x.numpy()}, SampleFacts(origin="drawn"), {"y": model(x).detach().numpy()})
    result = check_model(source_of_model(onnx.load(tmp_path / "model.onnx"), "model.onnx"), [sample], [], Silent())
    assert [tie.op_type for tie in result.ties] == ["Cast"]
    (saved,) = result.runtimes
    assert saved.status == "explained"
    assert saved.outputs[0].tied or saved.outputs[0].error < 1e-5
