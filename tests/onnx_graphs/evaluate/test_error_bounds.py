"""The registry of error bounds, and casts."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import Computation, computation
from actconform.onnx.evaluate.elementwise import OperatorNode
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs, error_bound, has_error_bound


def _bounded(op_type, output_type, *inputs, opset=24, **attributes):
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(op_type, names, ["y"], name="node", **attributes)
    (output,) = bounded_outputs(computation(node, opset), [output_type], inputs)
    return output


def test_an_operator_without_a_rule_is_named():
    node = OperatorNode("Fold", {}, 24, "com.example")
    with pytest.raises(Unsupported, match=r"no error bound for operator Fold \(domain com.example"):
        bounded_outputs(Computation(node, lambda inputs: inputs), [TensorProto.FLOAT], [])


def test_no_operator_has_two_rules():
    assert has_error_bound("Cast")
    assert has_error_bound("Cast", "ai.onnx")
    assert not has_error_bound("Cast", "com.example")
    with pytest.raises(ValueError, match="two error bounds for operator ::Cast"):
        error_bound("Cast")(lambda context, x: x)


def test_a_cast_to_floats_is_one_rounding_and_none_of_what_the_format_holds():
    x = Approximation(np.array([1.0, 1.0 + 2.0**-11, 0.1, 65504.0, 1e-8, np.inf]))
    y = _bounded("Cast", TensorProto.FLOAT16, x, to=TensorProto.FLOAT16)
    error = np.abs(x.value.astype(np.float16).astype(float)[:5] - x.value[:5])
    assert (error <= y.error[:5]).all()
    assert y.error[0] == 0
    assert y.error[3] == 0
    assert (y.error[1:3] <= 2.0**-11 * x.value[1:3] + 2.0**-24).all()
    assert _bounded("Cast", TensorProto.FLOAT, Approximation(np.array([1.5, 3.0])), to=TensorProto.FLOAT).error is None


def test_a_cast_to_integers_truncates_and_leaves_open_what_does_not_fit():
    x = Approximation(np.array([1.9, -1.9, 127.9, 128.0, -128.9, -129.0, np.nan, np.inf]))
    y = _bounded("Cast", TensorProto.INT8, x, to=TensorProto.INT8)
    assert y.value.dtype == np.int8
    np.testing.assert_array_equal(y.value[[0, 1, 2, 4]], [1, -1, 127, -128])
    np.testing.assert_array_equal(y.error, [0, 0, 0, np.inf, 0, np.inf, np.inf, np.inf])
    doubtful = Approximation(np.array([1.95, 1.5]), np.array([0.1, 0.1]))
    np.testing.assert_array_equal(_bounded("Cast", TensorProto.INT32, doubtful, to=TensorProto.INT32).error, [1, 0])
    wrapped = _bounded("Cast", TensorProto.UINT8, Approximation(np.array([-1, 256, 3])), to=TensorProto.UINT8)
    np.testing.assert_array_equal(wrapped.value, [255, 0, 3])
    assert wrapped.error is None


def test_a_cast_to_booleans_asks_for_zero():
    y = _bounded("Cast", TensorProto.BOOL, Approximation(np.array([0.5, 0.0, np.nan])), to=TensorProto.BOOL)
    np.testing.assert_array_equal(y.value, [True, False, True])
    assert y.error is None
    y = _bounded("Cast", TensorProto.BOOL, Approximation(np.array([0.5, 0.0]), np.asarray(0.1)), to=TensorProto.BOOL)
    np.testing.assert_array_equal(y.error, [0, np.inf])


def test_large_tensors_are_bounded_as_their_parts_are():
    rng = np.random.default_rng(1)
    x, scale = rng.standard_normal((3, 40, 300)), rng.standard_normal(300)
    whole = {
        "Add": ((x, x[:1, :1]), {}),
        "Exp": ((x,), {}),
        "HardSigmoid": ((x,), {}),
        "Softmax": ((x,), {}),
        "LogSoftmax": ((x,), {}),
        "LayerNormalization": ((x, scale, scale), {}),
        "RMSNormalization": ((x, scale), {}),
    }
    for op_type, (inputs, attributes) in whole.items():
        for doubt in (None, 1e-3):
            error = None if doubt is None else np.full(x.shape, doubt)
            others = [Approximation(each) for each in inputs[1:]]
            large = _bounded(op_type, TensorProto.FLOAT, Approximation(x, error), *others, **attributes)
            for place in ((0, 0), (1, 17), (2, 39)):
                part = x[place][None, None]
                alone = _bounded(
                    op_type,
                    TensorProto.FLOAT,
                    Approximation(part, None if doubt is None else np.full(part.shape, doubt)),
                    *others,
                    **attributes,
                )
                np.testing.assert_allclose(np.broadcast_to(large.error, x.shape)[place], alone.error[0, 0], rtol=1e-9)
    channels = rng.standard_normal((4, 40)) ** 2
    parameters = [Approximation(each) for each in channels]
    y = rng.standard_normal((2, 40, 300))
    large = _bounded("BatchNormalization", TensorProto.FLOAT, Approximation(y), *parameters)
    alone = _bounded(
        "BatchNormalization",
        TensorProto.FLOAT,
        Approximation(y[1:, 7:8]),
        *(Approximation(each[7:8]) for each in channels),
    )
    np.testing.assert_allclose(large.error[1, 7], alone.error[0, 0], rtol=1e-9)


def test_a_subnormal_number_may_be_read_as_zero_where_hardware_flushes():
    x = Approximation(np.array([2.0**-130, 0.0, 1.0]))
    y = _bounded("Cast", TensorProto.BFLOAT16, x, to=TensorProto.BFLOAT16)
    assert y.error[0] >= 2.0**-130
