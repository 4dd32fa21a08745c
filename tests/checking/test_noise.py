"""Expected noise against torch in half precision and integers by NumPy; planted losses of range and precision are named at their layer."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from small_models import CONV, ENCODER, FLOW, IMAGES, LSTM, QUANTIZED, STEPS, TOKENS, flow, made, numbers
from torch.nn import functional

from actconform.checking import format_noise
from actconform.checking.flatten import flatten
from actconform.checking.low_precision import lowered, lowered_sample
from actconform.checking.noise import DRAWS, noise_check, truth_of_original
from actconform.checking.noise_result import NoiseCheck

HALF = {"f16": torch.float16, "bf16": torch.bfloat16}


def checked(model, inputs, dtype="f16", got=None, *, alone=False, between_casts=False):
    """Check a float32 model that is converted; `alone`: the converted one is all there is."""
    sample = lowered_sample(inputs, dtype)
    graph = flatten(lowered(model, dtype, between_casts=between_casts).model, sample)
    truth = None if alone else truth_of_original(flatten(model, inputs), inputs, graph)
    return noise_check(graph, sample, {} if got is None else {"got": got}, truth=truth)


def encoder(dtype):
    """Return the tensors of ENCODER as torch computes them in `dtype`."""
    w = {each.name: torch.tensor(numpy_helper.to_array(each)).to(dtype) for each in ENCODER.graph.initializer}
    t = {"p": torch.tensor(TOKENS["x"]).to(dtype) @ w["w"]}
    t["a"] = t["p"] + w["bias"]
    t["mean"] = t["a"].mean(-1, keepdim=True)
    t["centered"] = t["a"] - t["mean"]
    t["square"] = t["centered"] * t["centered"]
    t["variance"] = t["square"].mean(-1, keepdim=True)
    t["shifted"] = t["variance"] + w["epsilon"]
    t["deviation"] = t["shifted"].sqrt()
    t["normal"] = t["centered"] / t["deviation"]
    t["scaled"] = t["normal"] * w["scale"]
    t["argument"] = t["scaled"] / w["root"]
    t["e"] = torch.erf(t["argument"])
    t["one_more"] = t["e"] + w["one"]
    t["half"] = t["scaled"] * t["one_more"]
    t["gelu"] = t["half"] * w["a_half"]
    t["l"] = functional.layer_norm(t["gelu"], (8,), w["scale"], w["shift"], eps=1e-5)
    t["t"] = torch.tanh(t["l"])
    t["out"] = t["t"] @ w["o_w"] + w["o_b"]
    t["y"] = torch.softmax(t["out"], -1)
    return {name: tensor.double().numpy() for name, tensor in t.items()}


def conv(dtype):
    """Return tensors of CONV as torch computes them in `dtype`."""
    w = {
        each.name: torch.tensor(numpy_helper.to_array(each)).to(dtype)
        for each in CONV.graph.initializer
        if each.data_type == onnx.TensorProto.FLOAT
    }
    t = {"c": functional.conv2d(torch.tensor(IMAGES["x"]).to(dtype), w["c_w"], w["c_b"], padding=1)}
    t["b"] = functional.batch_norm(t["c"], w["mean"], w["variance"], w["scale"], w["shift"], eps=1e-5)
    t["r"] = torch.relu(t["b"])
    t["p"] = functional.max_pool2d(t["r"], 3, 2)
    t["z"] = functional.interpolate(t["p"], scale_factor=2.0)
    t["h"] = torch.clip(t["z"] * 0.2 + 0.5, 0, 1)
    t["q"] = torch.clip(t["z"], 0, 0.5)
    t["m"] = t["h"] * t["q"]
    t["s"] = torch.sigmoid(t["m"])
    t["g"] = functional.pad(t["s"], (0, 2, 1, 0)).mean((2, 3), keepdim=True)
    t["y"] = t["g"].flatten(1) @ w["g_w"] + w["g_b"]
    return {name: tensor.double().numpy() for name, tensor in t.items()}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("run", "model", "inputs"), [(encoder, ENCODER, TOKENS), (conv, CONV, IMAGES)])
def test_the_expected_noise_is_what_torch_makes_of_the_model_in_that_format(run, model, inputs, dtype):
    half, truth = run(HALF[dtype]), run(torch.float64)
    check = checked(model, inputs, dtype, half)
    assert check.format == dtype
    compared = [layer for layer in check.layers if layer.tensor in half]
    assert len(compared) == len(half)
    for layer in compared:
        error = np.sqrt(np.mean((half[layer.tensor] - truth[layer.tensor]) ** 2))
        assert 1 / 3 < error / layer.noise < 3, layer.tensor
        assert layer.got[0].error == pytest.approx(error, rel=1e-3)
    assert (check.range_lost, check.precision_lost, check.converted_wrong, check.beyond) == ("", (), "", {})
    assert f"got is within the noise of {dtype}: at most" in " ".join(check.summary)


def shown(model, sample):
    """Return all tensors of a model as ONNX Runtime shows them, unoptimized."""
    graph = flatten(model, sample)
    marked = onnx.ModelProto()
    marked.CopyFrom(graph.model)
    for node in graph.nodes:
        infos = [helper.make_tensor_value_info(name, graph.types[name], None) for name in node.outputs]
        marked.graph.output.extend(info for info in infos if info.name not in graph.outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(marked.SerializeToString(), options, ["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, dict(sample)), strict=True))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(CONV, IMAGES), (ENCODER, TOKENS), (LSTM, STEPS), (FLOW, flow())],
    ids=["conv", "encoder", "lstm", "flow"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_onnx_runtime_in_float16_is_within_the_noise(model, inputs, alone):
    got = shown(lowered(model).model, lowered_sample(inputs))
    check = checked(model, inputs, got=got, alone=alone)
    assert check.beyond == {}
    assert max(each.ratio for layer in check.layers for each in layer.got) < 3
    assert check.converted_wrong == ""


X = numbers(11, 6, 8)
W = numbers(1, 8, 8)
NORMAL = made(
    """(float[n, 8] x) => (float[n, 8] y)
    {
        p = MatMul (x, w)
        mean = ReduceMean <axes = [-1]> (p)
        centered = Sub (p, mean)
        square = Mul (centered, centered)
        variance = ReduceMean <axes = [-1]> (square)
        shifted = Add (variance, epsilon)
        deviation = Sqrt (shifted)
        normal = Div (centered, deviation)
        y = Tanh (normal)
    }""",
    {"w": W, "epsilon": np.float32(1e-12)},
)
SILENT_ROW = np.where(np.arange(6)[:, None] == 2, 0, X).astype(np.float32)


def test_an_overflow_is_named_where_it_comes_to_be():
    model = made(
        "(float[n, 8] x) => (float[n, 8] y)"
        "{ p = MatMul (x, w)  b = Mul (p, big)  s = Mul (b, b)  r = Sqrt (s)  d = Div (r, big)  y = Tanh (d) }",
        {"w": W, "big": np.float32(300)},
    )
    got = {"s": np.full((6, 8), np.inf, np.float16), "p": (X @ W).astype(np.float16)}
    check = checked(model, {"x": X}, got=got)
    true = ((X.astype(np.float64) @ W) * 300) ** 2
    assert check.range_lost == "Mul:s"
    assert f"{true.max():.3g} is beyond 65,504 ({(true >= 65520).sum()} of 48 values)" in check.summary[0]
    assert "2 later tensors have NaN or infinities for it" in check.summary[0]
    assert checked(model, {"x": X}, between_casts=True).range_lost == "Mul:s"
    assert checked(model, {"x": X}, "bf16").range_lost == ""


def test_infinities_that_the_format_makes_are_no_fault_of_a_runtime_and_others_are():
    model = made("(float[n] x) => (float[n] y) { s = Mul (x, x)  y = Mul (s, tiny) }", {"tiny": np.float32(0.001)})
    inputs = {"x": np.float32([300, 3])}
    right = {"s": np.float16([np.inf, 9]), "y": np.float16([np.inf, 0.009])}
    assert checked(model, inputs, got=right).beyond == {}
    wrong = {"s": np.float16([np.inf, 9]), "y": np.float16([np.inf, np.inf])}
    check = checked(model, inputs, got=wrong)
    assert check.beyond == {"got": "Mul:y"}
    assert check.layers[-1].got[0].nonfinite == 2


def test_a_mask_of_minus_infinity_is_told_as_harmless():
    mask = np.float32([0, 0, 0, 0, 0, 0, -3.4e38, -3.4e38])
    model = made(
        "(float[n, 8] x) => (float[n, 8] y) { p = MatMul (x, w)  q = Add (p, mask)  y = Softmax <axis = -1> (q) }",
        {"w": W, "mask": mask},
    )
    check = checked(model, {"x": X})
    assert check.range_lost == ""
    assert check.summary[0] == (
        "range is left at Add:q (Add) without effect: 3.4e+38 is beyond 65,504 (12 of 48 values), and all later layers are numbers"
    )


def test_a_cancellation_is_named_with_the_bits_that_it_loses():
    model = made(
        "(float[n, 8] x) => (float[n, 8] y)"
        "{ p = MatMul (x, w)  b = Add (p, big)  m = ReduceMean <axes = [-1]> (b)  c = Sub (b, m)  y = Tanh (c) }",
        {"w": W, "big": np.float32(500.25)},
    )
    check = checked(model, {"x": X})
    assert check.precision_lost == ("Sub:c",)
    assert set(checked(model, {"x": X}, "bf16", between_casts=True).precision_lost) == {"Sub:c"}
    (layer,) = (layer for layer in check.layers if layer.node == "Sub:c")
    product = X.astype(np.float64) @ W
    spread = np.sqrt(np.mean((product - product.mean(-1, keepdims=True)) ** 2))
    assert layer.lost_bits == pytest.approx(
        np.log2(500.25 / spread), abs=1
    )  # what the two are larger than their difference
    assert f"precision: 1 layer loses more than 2 bits: Sub:c (Sub) {layer.lost_bits:.1f} bits" in check.summary


def test_an_epsilon_that_becomes_0_is_named_where_it_is_added():
    check = checked(NORMAL, {"x": SILENT_ROW})
    assert check.range_lost == "Add:shifted"
    assert "1e-12 is 0 in f16, whose smallest number is 5.96e-08 (1 of 6 values)" in check.summary[0]
    assert "output y: 8 of 48 values are expected to be NaN or infinite" in check.summary
    assert checked(NORMAL, {"x": SILENT_ROW}, between_casts=True).range_lost == "Add:shifted"
    assert checked(NORMAL, {"x": SILENT_ROW}, "bf16").range_lost == ""


def test_an_epsilon_that_becomes_0_and_matters_nowhere_is_not_named():
    check = checked(NORMAL, {"x": X})
    assert (check.range_lost, check.precision_lost) == ("", ())


def test_without_the_model_as_trained_the_graph_itself_gives_nan():
    check = checked(NORMAL, {"x": SILENT_ROW}, alone=True)
    assert "the graph itself gives NaN first at Div:normal (Div): 8 values, whatever the format" in check.summary
    assert check.range_lost == ""


def test_values_below_the_normal_numbers_are_named():
    model = made(
        "(float[n, 8] x) => (float[n, 8] y) { p = MatMul (x, w)  q = Mul (p, tiny)  y = Mul (q, large) }",
        {"w": W, "tiny": np.float32(1e-7), "large": np.float32(1e4)},
    )
    check = checked(model, {"x": X})
    assert (check.range_lost, check.precision_lost) == ("Mul:q", ("Mul:q",))
    assert checked(model, {"x": X}, "bf16").precision_lost == ()


def test_a_runtime_that_is_off_by_more_than_noise_is_named_where_it_begins():
    got = encoder(torch.float16)
    got["centered"] = got["centered"] * 1.02
    for name in ("square", "variance", "shifted"):
        got[name] = got[name] * 1.04
    check = checked(ENCODER, TOKENS, got=got)
    assert check.beyond == {"got": "Sub:centered"}
    assert check.converted_wrong == ""
    assert any(
        "got is off by more than the noise of f16, first at Sub:centered (Sub)" in line for line in check.summary
    )


def test_a_file_in_float16_with_another_weight_is_no_conversion_of_the_model():
    half, _ = lowered(ENCODER)
    weight = next(tensor for tensor in half.graph.initializer if tensor.name == "shift")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float16(0.1), "shift"))
    sample = lowered_sample(TOKENS)
    graph = flatten(half, sample)
    truth = truth_of_original(flatten(ENCODER, TOKENS), TOKENS, graph)
    check = noise_check(
        graph, sample, {"got": shown(half, sample)}, truth=truth, layer_of={"LayerNormalization:l": "norm"}
    )
    assert check.converted_wrong == "LayerNormalization:l"
    assert check.beyond == {"got": "LayerNormalization:l"}
    text = " ".join(check.summary)
    assert "conversion: at norm (LayerNormalization LayerNormalization:l) the graph, computed without rounding" in text
    assert "got is off by more than the noise of f16, as the graph itself is, first at norm" in text


# Quantized graphs

DATA = numbers(21, 64, 16)
W1, W2 = numbers(22, 16, 32, scale=0.3), numbers(23, 32, 8, scale=0.3)
FLOAT = made(
    "(float[n, 16] x) => (float[n, 8] y) { p = MatMul (x, w1)  r = Relu (p)  y = MatMul (r, w2) }",
    {"w1": W1, "w2": W2},
)


def quantized_weight(weight, times=1.0):
    scale = np.float32(np.abs(weight).max() / 127 * times)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def quantized(x=1.0, hidden=1.0, weight=1.0):
    """Return FLOAT with QuantizeLinear and DequantizeLinear, its Relu folded as quantizers do, scales off by factors."""
    q1, s1 = quantized_weight(W1, weight)
    q2, s2 = quantized_weight(W2)
    return made(
        """(float[n, 16] x) => (float[n, 8] y)
        {
            qx = QuantizeLinear (x, sx, zero)
            dx = DequantizeLinear (qx, sx, zero)
            w1 = DequantizeLinear (q1, s1, zero)
            p = MatMul (dx, w1)
            qr = QuantizeLinear (p, sr, lowest)
            r = DequantizeLinear (qr, sr, lowest)
            w2 = DequantizeLinear (q2, s2, zero)
            y = MatMul (r, w2)
        }""",
        {
            "sx": np.float32(np.abs(DATA).max() / 127 * x),
            "sr": np.float32((DATA @ W1).max() / 255 * hidden),
            "q1": q1,
            "s1": s1,
            "q2": q2,
            "s2": s2,
            "zero": np.int8(0),
            "lowest": np.uint8(0),
        },
    )


def quantized_check(model, *, alone=False):
    graph = flatten(model, {"x": DATA})
    truth = None if alone else truth_of_original(flatten(FLOAT, {"x": DATA}), {"x": DATA}, graph)
    return noise_check(graph, {"x": DATA}, {"got": shown(model, {"x": DATA})}, truth=truth)


@pytest.mark.parametrize("alone", [False, True], ids=["against the float model", "alone"])
def test_a_healthy_quantized_graph_has_the_noise_of_its_steps(alone):
    check = quantized_check(quantized(), alone=alone)
    assert check.format == "int8"
    first = check.layers[0]
    assert (first.node, first.format) == ("QuantizeLinear:qx", "int8")
    assert first.noise == pytest.approx(first.step / np.sqrt(12), rel=0.05)
    for layer in check.layers:
        if layer.noise > 1e-6 * layer.magnitude:
            assert 1 / 3 < layer.got[0].ratio < 3, layer.node
    assert (check.clipping, check.coarse, check.precision_lost, check.converted_wrong) == ((), (), (), "")
    assert check.is_the_model
    assert check.beyond == {}


@pytest.mark.parametrize("alone", [False, True], ids=["against the float model", "alone"])
@pytest.mark.parametrize(
    ("scales", "field", "node"),
    [
        ({"x": 10}, "coarse", "QuantizeLinear:qx"),
        ({"x": 0.1}, "clipping", "QuantizeLinear:qx"),
        ({"hidden": 10}, "coarse", "QuantizeLinear:qr"),
        ({"hidden": 0.1}, "clipping", "QuantizeLinear:qr"),
        ({"weight": 10}, "coarse", "DequantizeLinear:w1"),
    ],
    ids=["x-coarse", "x-clips", "hidden-coarse", "hidden-clips", "weight-coarse"],
)
def test_a_scale_that_is_10_times_wrong_is_named(scales, field, node, alone):
    check = quantized_check(quantized(**scales), alone=alone)
    assert getattr(check, field) == (node,)
    assert check.clipping if field == "clipping" else not check.clipping
    assert check.is_the_model  # scales are a choice of whoever calibrated it: told, and no fault
    assert check.beyond == {}  # it is what these scales do, and the runtime does it
    assert any(line.startswith(field) and node in line for line in check.summary)


def test_what_clips_says_how_much_and_what_it_costs():
    check = quantized_check(quantized(x=0.1))
    layer = check.layers[0]
    limit = np.abs(DATA).max() / 127 * 0.1 * 127
    cut = np.maximum(np.abs(DATA.astype(np.float64)) - limit, 0)
    assert layer.clipped == pytest.approx((cut > 0).sum(), abs=15)  # some by less than half a step
    assert layer.clip_loss == pytest.approx(np.sqrt(np.mean(cut**2)), rel=0.02)
    assert layer.noise == pytest.approx(layer.clip_loss, rel=0.05)


def test_weights_that_were_clipped_are_told_against_the_float_model():
    check = quantized_check(quantized(weight=0.1))
    assert check.converted_wrong == "DequantizeLinear:w1"


def test_dynamic_quantization_and_integer_products_are_followed():
    graph = flatten(QUANTIZED, TOKENS)
    check = noise_check(graph, TOKENS, {"got": shown(QUANTIZED, TOKENS)})
    assert check.layers[-1].tensor == "y"
    assert check.layers[-1].noise > 1e-3 * check.layers[-1].magnitude
    assert check.beyond == {}


def test_the_steps_of_a_dynamic_quantization_are_those_of_its_range():
    model = made(
        "(float[n, 8] x) => (float[n, 8] y) { q, s, z = DynamicQuantizeLinear (x)  y = DequantizeLinear (q, s, z) }"
    )
    got = shown(model, TOKENS)
    check = noise_check(flatten(model, TOKENS), TOKENS, {"got": got})
    layer = check.layers[0]
    reach = float(TOKENS["x"].max() - TOKENS["x"].min())
    assert layer.noise == pytest.approx(reach / 255 / np.sqrt(12), rel=0.2)  # 48 numbers
    assert layer.got[0].error == pytest.approx(np.sqrt(np.mean((got["y"] - TOKENS["x"]) ** 2)), rel=1e-3)
    assert check.precision_lost == ()


def test_a_relu_that_a_quantization_does_is_compared_as_one():
    """The float model has it in front of the tensor of that name, as quantizers rename what they fold."""
    model = quantized()
    for node in model.graph.node:
        node.input[:] = ["r_before" if name == "p" else name for name in node.input]
        node.output[:] = ["r_before" if name == "p" else name for name in node.output]
    graph = flatten(model, {"x": DATA})
    truth = truth_of_original(flatten(FLOAT, {"x": DATA}), {"x": DATA}, graph)
    truth["r_before"] = truth["r"]
    check = noise_check(graph, {"x": DATA}, {"got": shown(model, {"x": DATA})}, truth=truth)
    assert (check.converted_wrong, check.beyond) == ("", {})


def test_quantizing_again_in_the_same_steps_adds_nothing():
    model = made(
        "(float[n, 16] x) => (float[n, 16] y) { a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)  c = Neg (b)"
        "  d = QuantizeLinear (c, s, z)  y = DequantizeLinear (d, s, z) }",
        {"s": np.float32(0.03125), "z": np.int8(0)},
    )
    check = noise_check(flatten(model, {"x": DATA}), {"x": DATA}, {})
    assert check.layers[-1].noise == pytest.approx(check.layers[0].noise)


# What it costs


def test_it_costs_as_many_evaluations_as_draws_and_one(monkeypatch):
    calls = []
    outputs = format_noise.node_outputs
    monkeypatch.setattr(
        format_noise, "node_outputs", lambda node, *rest: calls.append(node.name) or outputs(node, *rest)
    )
    checked(ENCODER, TOKENS, alone=True)
    assert len(calls) == (DRAWS + 1) * len(ENCODER.graph.node)
    assert DRAWS + 1 <= 10


def test_it_is_the_same_every_time_and_goes_into_json():
    first, second = checked(ENCODER, TOKENS), checked(ENCODER, TOKENS)
    assert first == second
    assert msgspec.json.decode(msgspec.json.encode(first), type=NoiseCheck) == first


def test_draws_in_which_rounding_decides_a_shape_are_left_out():
    model = made(
        "(float16[n] x) => (float16[m] y) { s = ReduceSum <keepdims = 1> (x)  f = Mul (s, tenth)  c = Ceil (f)"
        "  i = Cast <to = 7> (c)  e = ConstantOfShape <value = float16[1] {1}> (i)  y = Add (e, three) }",
        {"tenth": np.float16(0.1), "three": np.zeros(3, np.float16)},
    )
    sample = {"x": np.float16([9.99, 10, 10])}
    check = noise_check(flatten(model, sample), sample, {})
    assert [layer.tensor for layer in check.layers][-1] == "y"


def test_integers_that_are_quantized_have_no_noise():
    model = made(
        "(int32[n] x) => (float[n] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        {"s": np.float32(2), "z": np.int8(0)},
    )
    inputs = {"x": np.int32([-4, 0, 2, 8])}
    first = noise_check(flatten(model, inputs), inputs, {}, truth=None).layers[0]
    assert (first.node, first.noise, first.largest, first.smallest) == ("QuantizeLinear:q", 0.0, 8.0, 2.0)


def test_an_infinite_scale_loses_all():
    model = made(
        "(float[n] x) => (float[n] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, t, z) }",
        {"s": np.float32(np.inf), "t": np.float32(1), "z": np.uint8(128)},
    )
    inputs = {"x": np.float32([-4, 0, 2, 8])}
    graph = flatten(model, inputs)
    got = {"runtime": {"q": graph.truth["y"].astype(np.uint8), "y": graph.truth["y"].astype(np.float32)}}
    first = noise_check(graph, inputs, got).layers[0]
    assert (first.node, first.lost, first.step) == ("QuantizeLinear:q", 4, np.inf)
