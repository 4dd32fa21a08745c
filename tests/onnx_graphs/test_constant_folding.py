"""What is computed before a graph runs: shapes, constants, and which branch an `If` takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from actconform.onnx.constant_folding import LARGEST, decided, infer_constants
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients


def parsed(graph, opset=18):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> agraph {graph}')


def operators(model):
    return [node.op_type for node in model.graph.node]


BY_SHAPE = """(double[2, SIZE, 4] x) => (double[a, b] y) {
    shape = Shape (x)
    one = Constant <value_ints = [1]> ()
    size = Gather <axis = 0> (shape, one)
    squeezable = Equal (size, one)
    y = If <
        then_branch = squeeze () => (double[2, 4] s) { s = Squeeze (x, one) },
        else_branch = add () => (double[2, 4] t) { t = ReduceSum <keepdims = 0> (x, one) }
    > (squeezable)
}"""


@pytest.mark.parametrize(("size", "taken"), [(1, "Squeeze"), (3, "ReduceSum")])
def test_a_branch_that_a_shape_decides_is_inlined(size, taken):
    model = decided(parsed(BY_SHAPE.replace("SIZE", str(size))))
    assert "If" not in operators(model)
    assert taken in operators(model)
    onnx.checker.check_model(model, full_check=True)
    x = np.arange(8.0 * size).reshape(2, size, 4)
    np.testing.assert_array_equal(reference(model.SerializeToString())({"x": x})["y"], x.sum(1))


def test_a_branch_that_only_a_run_decides_stays():
    model = parsed(BY_SHAPE.replace("SIZE", "n"))
    assert decided(model) is model
    made = add_gradients(model, shapes={"x": [2, 1, 4]})
    assert "If" not in operators(made)
    x = np.ones((2, 1, 4))
    got = reference(made.SerializeToString())({"x": x, "ct_y": np.arange(8.0).reshape(2, 4)})
    np.testing.assert_array_equal(got["d_x"], np.arange(8.0).reshape(2, 1, 4))


def test_branches_inside_branches_with_constants_of_one_name():
    """Both conditions are constants; `c` is the name of a tensor in each branch and of one outside."""
    model = parsed("""(double[2] x) => (double[2] y) {
        c = Constant <value = double {2.0}> ()
        z = Mul (x, c)
        true = Constant <value = bool {1}> ()
        y = If <
            then_branch = outer () => (double[2] o) {
                false = Not (true)
                o = If <
                    then_branch = first () => (double[2] f) { f = Neg (z) },
                    else_branch = second () => (double[2] s) { d = Constant <value = double {5.0}> () s = Mul (z, d) }
                > (false)
            },
            else_branch = never () => (double[2] n) { n = Identity (x) }
        > (true)
    }""")
    made = add_gradients(model)
    assert "If" not in operators(made)
    got = reference(made.SerializeToString())({"x": np.ones(2), "ct_y": np.ones(2)})
    np.testing.assert_array_equal(got["y"], [10.0, 10.0])
    np.testing.assert_array_equal(got["d_x"], [10.0, 10.0])


def test_names_in_a_branch_that_are_taken_are_changed():
    branch = "<then_branch = yes () => (double[2] a) { t = Exp (x) a = Neg (t) }, else_branch = no () => (double[2] b) { b = Neg (x) }>"
    model = parsed(f"""(double[2] x) => (double[2] y, double[2] z) {{
        true = Constant <value = bool {{1}}> ()
        y = If {branch} (true)
        z = If {branch} (true)
    }}""")
    flat = decided(model)
    onnx.checker.check_model(flat, full_check=True)
    assert operators(flat).count("Exp") == 2


def test_weights_in_a_branch_can_be_differentiated_by_once_it_is_inlined():
    model = parsed("""(double[2] x) => (double[2] y) {
        true = Constant <value = bool {1}> ()
        y = If <then_branch = yes () => (double[2] a) <double[2] w = {2, 3}> { a = Mul (x, w) }, else_branch = no () => (double[2] b) { b = Neg (x) }> (true)
    }""")
    got = reference(add_gradients(model, ["w"]).SerializeToString())({"x": np.array([4.0, 5.0]), "ct_y": np.ones(2)})
    np.testing.assert_array_equal(got["d_w"], [4.0, 5.0])


def test_shapes_and_constants_help_each_other():
    """What Pad adds is computed, so that onnx infers no size behind it; from that size follows the next constant."""
    model = parsed("""(double[3, 4] x) => (double[a, b] y) {
        two = Constant <value_ints = [2]> ()
        none = ConstantOfShape <value = int64[1] {0}> (two)
        margins = Concat <axis = 0> (none, two, two)
        wide = Pad (x, margins)
        shape = Shape (wide)
        size = Size (shape)
        y = Neg (wide)
    }""")
    inferred, values = infer_constants(model)
    assert numpy_helper.to_array(values["shape"]).tolist() == [5, 6]
    assert numpy_helper.to_array(values["size"]) == 2
    (y,) = inferred.output
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [5, 6]


def test_of_a_shape_that_is_known_in_part_that_part_is_used():
    model = parsed("""(double[n, 3] x) => (int64[1] a, int64[1] b) {
        shape = Shape (x)
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        a = Gather <axis = 0> (shape, one)
        b = Gather <axis = 0> (shape, zero)
    }""")
    _, values = infer_constants(model)
    assert numpy_helper.to_array(values["a"]).tolist() == [3]
    assert "b" not in values
    assert "shape" not in values


@pytest.mark.parametrize(
    "node",
    [
        "big = ConstantOfShape (many)",
        "zero = Constant <value_int = 0> () n = Squeeze (many) one = Constant <value_int = 1> () big = Range (zero, n, one)",
    ],
)
def test_nothing_large_is_made(node):
    model = parsed(f"() => (int64[k] y) {{ many = Constant <value_ints = [1000000000000]> () {node} y = Shape (big) }}")
    _, values = infer_constants(model)
    assert "big" not in values
    assert all(np.prod(tensor.dims) <= LARGEST for tensor in values.values())


BRANCHES = "{ y = If <then_branch = yes () => (double[2] a) { a = Neg (x) }, else_branch = no () => (double[2] b) { b = Exp (x) }> (c) }"


@pytest.mark.parametrize(("condition", "taken"), [(True, "Neg"), (False, "Exp")])
def test_a_condition_that_is_an_initializer_decides(condition, taken):
    model = parsed(f"(double[2] x) => (double[2] y) <bool c = {{{int(condition)}}}> {BRANCHES}")
    assert set(operators(decided(model))) == {taken, "Identity"}


def test_branches_whose_first_outputs_are_left_out_are_decided_apart():
    branch = "then_branch = t () => (double[2] {0}a, double[2] {0}b) {{ {0}a = Neg (x) {0}b = Mul (x, x) }}, else_branch = e () => (double[2] {0}c, double[2] {0}d) {{ {0}c = Neg (x) {0}d = Exp (x) }}"
    model = parsed(f"""(double[2] x) => (double[2] y, double[2] z) <bool yes = {{1}}, bool no = {{0}}> {{
        p, y = If <{branch.format("p")}> (yes)
        q, z = If <{branch.format("q")}> (no)
    }}""")
    for node in model.graph.node:
        node.output[0] = ""
    x = np.array([1.0, 3.0])
    got = reference(decided(model).SerializeToString())({"x": x})
    np.testing.assert_array_equal(got["y"], x * x)
    np.testing.assert_allclose(got["z"], np.exp(x))


def test_an_input_with_a_default_is_no_constant():
    model = parsed(f"(double[2] x, bool c) => (double[2] y) {BRANCHES}")
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    assert decided(model) is model


@pytest.mark.parametrize("stated", ["12", "3, 5", "3, 4", "a, 4"])
def test_a_shape_that_is_stated_of_a_branch_not_taken_gives_way(stated):
    """torch's TorchScript exporter states of scatter_reduce's result what the branch for scalars would give."""
    model = parsed(f"""(double[3, 4] x) => (double[{stated}] y) {{
        minus = Constant <value_ints = [-1]> ()
        false = Constant <value = bool {{0}}> ()
        z = If <
            then_branch = flat () => (double[12] s) {{ s = Reshape (x, minus) }},
            else_branch = same () => (double[3, 4] t) {{ t = Identity (x) }}
        > (false)
        e = Exp (z)
        y = If <
            then_branch = scalar () => (double[{stated}] u) {{ u = Squeeze (e) }},
            else_branch = whole () => (double[{stated}] v) {{ v = Identity (e) }}
        > (false)
    }}""")
    made = add_gradients(model)
    onnx.checker.check_model(made, full_check=True)
    x, g = np.ones((3, 4)), np.arange(12.0).reshape(3, 4)
    got = reference(made.SerializeToString())({"x": x, "ct_y": g})
    np.testing.assert_allclose(got["d_x"], g * np.e)
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in made.graph.input}
    assert sizes["ct_y"] == [3, 4] if stated != "a, 4" else sizes["ct_y"][1] == 4
