"""Notes on what a graph no longer has: as exporters leave it, written out here, and as torch exports it."""

from __future__ import annotations

import io
import time
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from actconform.onnx.grad.notes import lost_in_export
from actconform.onnx.grad.reverse_mode import add_gradients


def parsed(graph, **initializers):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> agraph {graph}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in initializers.items())
    return model


def noted(node, **entries):
    for key, value in entries.items():
        node.metadata_props.append(onnx.StringStringEntryProto(key=key.replace("__", "."), value=value))


RNG = np.random.default_rng(0)
W = RNG.standard_normal((3, 4))


def test_a_weight_with_several_readers_is_the_sum():
    model = parsed(
        "(double[n, 4] x) => (double[n, 3] y) { t = Transpose (w) [first] u = MatMul (x, t) [second] v = MatMul (u, w) [third] y = MatMul (v, t) }",
        w=W,
    )
    (note,) = lost_in_export(model, ["w"])
    assert "d_w is the sum over 2 readers of w" in note
    assert "MatMul second" in note
    assert lost_in_export(model, ["x"]) == []


def test_readers_that_no_output_needs_do_not_count():
    model = parsed("(double[n, 3] x) => (double[n, 4] y) { unused = Neg (w) y = MatMul (x, w) }", w=W)
    assert lost_in_export(model, ["w"]) == []


def test_readers_inside_a_branch_count():
    branch = "then_branch = a () => (double[n, 4] a1) { a1 = MatMul (x, w) }, else_branch = b () => (double[n, 4] b1) { b1 = Neg (u) }"
    model = parsed(f"(double[n, 3] x, bool c) => (double[n, 4] y) {{ u = MatMul (x, w) y = If <{branch}> (c) }}", w=W)
    (note,) = lost_in_export(model, ["w"], "grad/")
    assert "grad/w is the sum over 2 readers" in note


@pytest.mark.parametrize(
    ("copy", "held", "part"),
    [
        (W.T, "the transpose of e", "the transpose of d_copy"),
        (W, "the same numbers as e", "d_copy"),
        (0.25 * W.T, "0.25 times the transpose of e", "0.25 times the transpose of d_copy"),
        (-2 * W, "-2 times e", "-2 times d_copy"),
    ],
    ids=["transpose", "equal", "multiple of the transpose", "multiple"],
)
def test_a_copy_of_a_tied_embedding_is_named(copy, held, part):
    last = "y = MatMul (t, copy)" if copy.shape == (4, 3) else "back = Transpose (copy) y = MatMul (t, back)"
    model = parsed(
        f"(int64[n] i) => (double[n, 3] y) {{ [look] t = Gather (e, i) {last} }}", e=W, copy=np.ascontiguousarray(copy)
    )
    (note,) = lost_in_export(model, ["e"])
    assert f"holds {held}: if" in note
    assert f"gradient is d_e plus {part}; d_e alone" in note
    (reverse,) = lost_in_export(model, ["copy"])
    assert "e, read by Gather look" in reverse


def test_copies_that_begin_with_zeros_are_named_and_what_begins_alike_is_not():
    e = np.concatenate([np.zeros((1, 4)), W])
    alike = np.concatenate([e[:2], -e[2:]])
    model = parsed(
        "(double[n, 4] x) => (double[n, 4] y) { t = MatMul (x, copy) u = Add (t, t) v = MatMul (u, e) w = MatMul (x, alike) y = Add (v, w) }",
        e=e, copy=3 * e, alike=alike,
    )  # fmt: skip
    (note,) = lost_in_export(model, ["e"])
    assert "copy, read by MatMul -> t, holds 3 times e:" in note


def test_many_large_weights_are_compared_in_a_moment():
    n, size = 24, 400
    nodes = " ".join(f"t{i + 1} = MatMul (t{i}, w{i})" for i in range(n))
    weights = {f"w{i}": RNG.standard_normal((size, size)).astype(np.float32) for i in range(n)}
    model = parsed(f"(float[1, {size}] t0) => (float[1, {size}] t{n}) {{ {nodes} }}", **weights)
    started = time.process_time()
    assert lost_in_export(model, list(weights)) == []
    assert time.process_time() - started < 5


def test_a_copy_in_a_constant_node_is_named_too():
    model = parsed("(double[n, 3] x) => (double[n, 3] y) { t = MatMul (x, w) y = MatMul (t, c) }", w=W)
    constant = onnx.helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ascontiguousarray(W.T)))
    model.graph.node.insert(0, constant)
    assert "c, read by MatMul -> y, holds the transpose of w" in lost_in_export(model, ["w"])[0]


@pytest.mark.parametrize("value", [np.ones((3, 4)), np.array(2.0)], ids=["ones", "scalar"])
def test_what_is_equal_by_chance_is_not_named(value):
    model = parsed("(double[3, 4] x) => (double[3, 4] y) { t = Mul (x, a) y = Add (t, b) }", a=value, b=value.copy())
    assert lost_in_export(model, ["a", "b"]) == []


def test_a_fused_normalization_is_seen_by_its_note_or_by_the_name_of_its_bias():
    graph = "(double[n, 3, 5] x) => (double[n, 2, 3] y) { [conv] y = Conv (x, W, B) }"
    weights = np.ones((2, 3, 3)), np.ones(2)
    by_name = parsed(
        graph.replace("W,", "weight,").replace("B)", "weight_bias)"), weight=weights[0], weight_bias=weights[1]
    )
    assert "weight is not the parameter of that name alone" in lost_in_export(by_name, ["weight"])[0]
    by_note = parsed(graph, W=weights[0], B=weights[1])
    assert lost_in_export(by_note, ["W"]) == []
    noted(by_note.graph.node[0], pkg__onnxscript__rewriter__rule_name="FuseBatchNormIntoConv")
    assert "(FuseBatchNormIntoConv)" in lost_in_export(by_note, ["W"])[0].replace("rule_name", "")


@pytest.mark.parametrize("name", ["onnx::Conv_26", "const_fold_opt__12"])
def test_a_tensor_that_an_exporter_made_is_no_parameter(name):
    model = parsed("(double[n, 3] x) => (double[n, 4] y) { y = MatMul (x, w) }", w=W)
    model.graph.initializer[0].name = model.graph.node[0].input[1] = name
    assert f"{name} was made by the exporter" in lost_in_export(model, [name])[0]


def exported(module, *inputs):
    """Return what torch's dynamo exporter makes of a module."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, file, dynamo=True, verbose=False, external_data=False)
    return onnx.load_from_string(file.getvalue())


def test_torch_exports_a_tied_embedding_in_two_halves():
    torch = pytest.importorskip("torch")

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.o = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
            self.o.weight = self.e.weight

        def forward(self, i):
            return self.o(torch.tanh(self.e(i)))

    module, i = Tied(), torch.tensor([[1, 2]])
    model = exported(module, i)
    (name,) = (node.input[0] for node in model.graph.node if node.op_type == "Gather")
    notes = lost_in_export(model, [name])
    copies = [tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [4, 7]]
    if not copies:  # an exporter that keeps them tied gives the sum
        assert any(f"d_{name} is the sum over 2 readers" in note for note in notes)
        return
    assert any(f"{copies[0]}, read by" in note and "holds the transpose" in note for note in notes)
    # the two halves, put together as the note says, are torch's gradient
    from actconform.onnx.evaluate.reference import reference

    made = add_gradients(model, [name, *copies])
    (output,) = (value.name for value in model.graph.output)
    ct = np.random.default_rng(0).standard_normal((1, 2, 7)).astype(np.float32)
    got = reference(made.SerializeToString())({model.graph.input[0].name: i.numpy(), f"ct_{output}": ct})
    module(i).backward(torch.tensor(ct))
    np.testing.assert_allclose(got[f"d_{name}"] + got[f"d_{copies[0]}"].T, module.e.weight.grad, atol=1e-6)


def test_torch_exports_without_detach_padding_and_normalization():
    torch = pytest.importorskip("torch")

    class Lossy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e = torch.nn.Embedding(7, 4, padding_idx=2)
            self.c, self.b = torch.nn.Conv1d(4, 3, 1, bias=False), torch.nn.BatchNorm1d(3)
            self.l = torch.nn.Linear(3, 2)

        def forward(self, i):
            return self.l(self.b(self.c(self.e(i).transpose(1, 2))).mean(2).detach())

    model = exported(Lossy(), torch.tensor([[1, 2, 3]]))
    operators = [node.op_type for node in model.graph.node]
    notes = "\n".join(lost_in_export(model, ["e.weight", "c.weight"]))
    assert "row 2 of e.weight is the model's padding_idx" in notes
    assert "stopped a gradient before" in notes
    if "BatchNormalization" not in operators:
        assert "c.weight is not the parameter of that name alone" in notes
        assert "b.weight" in notes
