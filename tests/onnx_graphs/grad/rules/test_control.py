"""Gradients through If, Loop and Scan, by finite differences in float64 and in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.errors import UnsupportedOperator
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients

CELL = "a = MatMul(s, w) d = Add(a, x) s2 = Tanh(d) y = Mul(s2, x)"
LOOP = """(double[2] h0, double[5, 2] xs, double[2, 2] w) => (double[2] h, double[n, 2] ys) {
    count = Constant <value = int64 {LIMIT}> ()
    true = Constant <value = bool {1}> ()
    h, ys = Loop <body = step (int64 i, bool c, double[2] s) => (bool c2, double[2] s2, double[2] y) {
        CONDITION
        x = Gather <axis = 0> (xs, i)
        CELL
    }> (count, true, h0)
}""".replace("CELL", CELL)
SCAN = f"""(double[2] h0, double[AXES] xs, double[2, 2] w) => (double[2] h, double[AXES] ys) {{
    h, ys = Scan <num_scan_inputs = 1 HOW, body = step (double[2] s, double[2] x) => (double[2] s2, double[2] y) {{ {CELL} }}> (h0, xs)
}}"""


def parsed(graph, opset=18):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> agraph {graph}')


def feeds(**shapes):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def in_onnxruntime(model, given):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))


def agree(made, given):
    """Hold ONNX Runtime's answer against the evaluator's."""
    ours = CorrectlyRoundedEvaluator(made.SerializeToString(), rounding=False).forward(given)
    for name, each in in_onnxruntime(made, given).items():
        np.testing.assert_allclose(each, ours[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("condition", [True, False])
def test_if_differentiates_the_branch_that_is_taken(by_differences, condition):
    model = parsed("""(double[2] x, double[2] w, bool c) => (double[2] y, double[2] z) {
        y, v = If <
            then_branch = one () => (double[2] y1, double[2] v1) { n = Neg(x) y1 = Mul(n, w) v1 = Tanh(x) },
            else_branch = other () => (double[2] y2, double[2] v2) { y2 = Exp(x) v2 = Identity(x) }
        > (c)
        z = Mul(v, w)
    }""")
    given = feeds(x=2, w=2) | {"c": np.array(condition)}
    made = by_differences(model, given, ["x", "w"])
    agree(made, given | feeds(ct_y=2, ct_z=2))


@pytest.mark.parametrize(
    ("limit", "condition"), [(4, "c2 = Identity(c)"), (9, "two = Constant <value = int64 {2}> () c2 = Less(i, two)")]
)
def test_loop_differentiates_the_steps_that_were_taken(by_differences, limit, condition):
    model = parsed(LOOP.replace("LIMIT", str(limit)).replace("CONDITION", condition))
    given = feeds(h0=2, xs=(5, 2), w=(2, 2))
    made = by_differences(model, given, ["h0", "xs", "w"])
    agree(made, given | feeds(ct_h=2, ct_ys=(min(limit, 3 if limit == 9 else limit), 2)))


@pytest.mark.parametrize(
    ("axes", "how"),
    [
        ("n, 2", ""),
        ("n, 2", ", scan_input_directions = [1]"),
        ("n, 2", ", scan_output_directions = [1]"),
        (
            "2, n",
            ", scan_input_axes = [1], scan_output_axes = [1], scan_input_directions = [1], scan_output_directions = [1]",
        ),
    ],
)
def test_scan_in_all_directions(by_differences, axes, how):
    model = parsed(SCAN.replace("AXES", axes).replace(" HOW", how))
    shape = (4, 2) if axes == "n, 2" else (2, 4)
    given = feeds(h0=2, xs=shape, w=(2, 2))
    made = by_differences(model, given, ["h0", "xs", "w"])
    agree(made, given | feeds(ct_h=2, ct_ys=shape))


def test_control_flow_inside_control_flow(by_differences):
    model = parsed("""(double[2] h0, double[n, 2] xs, double[2] w) => (double[2] h) {
        h = Scan <num_scan_inputs = 1, body = step (double[2] s, double[2] x) => (double[2] s2) {
            total = ReduceSum <keepdims = 0> (x)
            zero = Constant <value = double {0.0}> ()
            up = Greater(total, zero)
            moved = If <
                then_branch = one () => (double[2] m1) { p = Mul(x, w) m1 = Sin(p) },
                else_branch = other () => (double[2] m2) { m2 = Mul(x, s) }
            > (up)
            s2 = Add(s, moved)
        }> (h0, xs)
    }""")
    given = feeds(h0=2, xs=(6, 2), w=2)
    made = by_differences(model, given, ["h0", "xs", "w"])
    agree(made, given | feeds(ct_h=2))


def test_a_gradient_through_a_scan_has_a_gradient(by_differences):
    model = parsed(SCAN.replace("AXES", "n, 2").replace(" HOW", ""))
    first = add_gradients(model, ["w"], ["h"], keep_outputs=False)
    given = feeds(h0=2, xs=(4, 2), w=(2, 2), ct_h=2)
    rng = np.random.default_rng(1)
    second = add_gradients(first, ["w", "xs"], cotangent="ct2_", gradient="d2_", keep_outputs=False)
    given["ct2_d_w"] = rng.standard_normal((2, 2))
    got = in_onnxruntime(second, given)
    slope = CorrectlyRoundedEvaluator(first.SerializeToString(), rounding=False).forward
    for name in ("w", "xs"):
        direction = rng.standard_normal(given[name].shape)
        ends = [
            np.sum(
                given["ct2_d_w"]
                * slope({**{k: v for k, v in given.items() if k != "ct2_d_w"}, name: given[name] + e * direction})[
                    "d_w"
                ]
            )
            for e in (1e-5, -1e-5)
        ]
        assert np.sum(got[f"d2_{name}"] * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_sums_over_steps_are_done_in_float32(by_differences):
    """The gradient by what the body captures adds up 3,000 ones: float16 stops at 2,048."""
    model = parsed("""(float16[1] h0, float16[n, 1] xs, float16[1] w) => (float16[1] h) {
        h = Scan <num_scan_inputs = 1, body = step (float16[1] s, float16[1] x) => (float16[1] s2) { p = Mul(x, w) s2 = Add(s, p) }> (h0, xs)
    }""")
    one = np.ones(1, np.float16)
    given = {"h0": one, "xs": np.ones((3000, 1), np.float16), "w": one, "ct_h": one}
    got = CorrectlyRoundedEvaluator(add_gradients(model, ["w"]).SerializeToString()).forward(given)
    np.testing.assert_array_equal(got["d_w"], [3000])


def test_a_state_that_grows_is_refused():
    model = parsed("""(double[1] h0, double[1] x) => (double[n] h) {
        count = Constant <value = int64 {3}> ()
        h = Loop <body = step (int64 i, bool c, double[m] s) => (bool c2, double[k] s2) { c2 = Identity(c) s2 = Concat <axis = 0> (s, x) }> (count, , h0)
    }""")
    with pytest.raises(UnsupportedOperator, match=r"Loop .*the state s changes its shape .*unrolled"):
        add_gradients(model, ["x"])


def test_what_has_no_rule_inside_a_branch_is_named():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18, "other": 1]>
        agraph (double[2] x, bool c) => (double[2] y) {
            y = If <then_branch = one () => (double[2] a) { [it] a = other.Squash(x) }, else_branch = two () => (double[2] b) { b = Neg(x) }> (c)
        }""")
    with pytest.raises(UnsupportedOperator, match=r"operator Squash \(domain other, opset 18\)"):
        add_gradients(model, ["x"])
