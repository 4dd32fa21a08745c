"""BatchNorm folded as exporters do it in float32, and weights quantized as ONNX defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_graphs import compared, layer, node, numbers

from actconform.types.trained import LayerRecord

CONV = "torch.nn.modules.conv.Conv2d"


def batch_norm(channels, *, seed=1, trained=True, mark="."):
    rng = np.random.default_rng(seed)
    gamma, beta = rng.normal(1, 0.2, channels), rng.normal(0, 1, channels)
    mean, variance = rng.normal(0, 1, channels), rng.uniform(0.01, 2, channels)
    if not trained:
        gamma, beta, mean, variance = gamma * 0 + 1, beta * 0, mean * 0, variance * 0 + 1
    names = (
        ("weight", "bias", "running_mean", "running_var")
        if mark == "."
        else ("gamma", "beta", "moving_mean", "moving_variance")
    )
    arrays = (gamma, beta, mean, variance)
    return {f"bn{mark}{name}": array.astype(np.float32) for name, array in zip(names, arrays, strict=True)}


def factor_and_shift(norm, bias, epsilon):
    """All in float32, in the order in which torch folds."""
    gamma, beta, mean, variance = norm.values()
    factor = gamma * (np.float32(1) / np.sqrt(variance + np.float32(epsilon)))
    return factor, (bias - mean) * factor + beta


def over(values, rank, axis):
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


SHAPES = {
    "conv": ((6, 3, 3, 3), 0),
    "depthwise": ((6, 1, 3, 3), 0),
    "square conv": ((6, 6, 3, 3), 0),
    "transposed conv": ((4, 6, 2, 2), 1),
    "linear": ((6, 9), 0),
    "conv1d": ((6, 4, 5), 0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("with_layers", [False, True])
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from([1e-5, 1e-3, 1e-6, 3e-4]))
@settings(max_examples=5, deadline=None)
def test_folded_into_the_weights_before(shape, biased, with_layers, seed, epsilon):
    sizes, axis = SHAPES[shape]
    weight, bias, norm = (
        numbers(seed, *sizes),
        numbers(seed + 1, 6) if biased else np.zeros(6, np.float32),
        batch_norm(6, seed=seed),
    )
    factor, shift = factor_and_shift(norm, bias, epsilon)
    parameters = {"conv.weight": weight, **({"conv.bias": bias} if biased else {}), **norm}
    names = [name.removeprefix("bn.") for name in norm]
    layers = (
        [layer("conv", CONV, "weight", "bias"), layer("bn", "BatchNorm2d", *names, reads=1, gives=2)]
        if with_layers
        else []
    )
    constants = {"v1": weight * over(factor, len(sizes), axis), "v2": shift}
    checks, comparison = compared(parameters, constants, [node("Conv", "x", "v1", "v2")], layers)
    assert {check.state for check in checks.values()} == {"folded"}, checks
    assert not any(check.exact for check in checks.values())
    assert "bn" in checks["conv.weight"].words
    assert comparison.owners == {"v1": "conv.weight", "v2": "conv.bias" if biased else "bn.bias"}
    assert comparison.foreign == ()
    assert checks["bn.running_mean"].initializers == ("v2",)
    # The deviation is from the exact product, rounded once: the roundings of float32.
    assert checks["conv.weight"].largest_difference <= 8 * 2.0**-24 * np.abs(constants["v1"]).max()


def test_folded_into_a_kernel_of_keras_that_is_transposed_as_well():
    weight, bias, norm = numbers(1, 3, 3, 2, 6), numbers(2, 6), batch_norm(6, mark="/")
    factor, shift = factor_and_shift(norm, bias, 1e-3)
    constants = {"v1": (weight * factor).transpose(3, 2, 0, 1), "v2": shift}
    checks, _ = compared({"conv/kernel": weight, "conv/bias": bias, **norm}, constants)
    assert {check.state for check in checks.values()} == {"folded"}
    assert "eps 0.001" in checks["conv/kernel"].words


def test_folded_into_a_depthwise_kernel_of_two_channel_axes():
    weight, norm = numbers(1, 3, 3, 3, 2), batch_norm(6, mark="/")
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-3)
    folded = (weight * factor.reshape(3, 2)).transpose(2, 3, 0, 1).reshape(6, 1, 3, 3)
    checks, _ = compared({"dw/kernel": weight, **norm}, {"v1": folded, "v2": shift})
    assert {check.state for check in checks.values()} == {"folded"}


@pytest.mark.parametrize("trained", [True, False])
def test_a_factor_and_a_shift_of_its_own(trained):
    weight, norms = numbers(1, 6, 6, 3, 3), [batch_norm(6, seed=i, trained=trained) for i in range(2)]
    parameters = {"conv.weight": weight}
    constants = {"v0": weight}
    nodes = [node("Conv", "x", "v0")]
    for i, norm in enumerate(norms):
        parameters |= {name.replace("bn", f"bn{i}"): array for name, array in norm.items()}
        factor, shift = factor_and_shift(norm, np.float32(0), 1e-3)
        constants |= {f"f{i}": factor.reshape(1, 6, 1, 1), f"s{i}": shift.reshape(1, 6, 1, 1)}
        nodes += [node("Mul", "x", f"f{i}", name=f"net/bn{i}/mul"), node("Add", "x", f"s{i}", name=f"net/bn{i}/add")]
    checks, comparison = compared(parameters, constants, nodes)
    assert checks["conv.weight"].state == "identical"
    for i in range(2):
        assert checks[f"bn{i}.running_var"].state == "folded"
        assert checks[f"bn{i}.running_var"].initializers[0] == f"f{i}"
    if trained:
        assert {check.state for name, check in checks.items() if name.startswith("bn")} == {"folded"}
        assert comparison.owners["s1"] == "bn1.bias"


def test_an_untrained_one_is_folded_and_not_a_factor():
    weight, norm = numbers(1, 6, 3, 3, 3), batch_norm(6, trained=False)
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-5)
    checks, _ = compared({"conv.weight": weight, **norm}, {"v1": weight * over(factor, 4, 0), "v2": shift})
    assert checks["conv.weight"].state == checks["bn.running_var"].state == "folded"
    assert "missing" not in {check.state for check in checks.values()}


def test_folded_and_rounded_to_float16():
    weight, norm = numbers(1, 6, 3, 3, 3), batch_norm(6)
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-5)
    constants = {"v1": (weight * over(factor, 4, 0)).astype(np.float16), "v2": shift.astype(np.float16)}
    checks, _ = compared({"conv.weight": weight, **norm}, constants)
    assert {check.state for check in checks.values()} == {"folded"}


@pytest.mark.parametrize("count", [1, 20])
def test_a_fold_of_which_some_values_are_wrong_is_different(count):
    weight, norm = numbers(1, 6, 3, 3, 3), batch_norm(6)
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-5)
    folded = weight * over(factor, 4, 0)
    folded.reshape(-1)[7 : 7 + count] *= np.float32(1.001)
    check = compared({"conv.weight": weight, **norm}, {"v1": folded, "v2": shift})[0]["conv.weight"]
    assert check.state == "different"
    assert f"{count} of 162 values" in check.words
    expected = (weight * over(factor, 4, 0)).astype(float)
    assert abs(check.largest_difference - np.abs(folded - expected).max()) < 1e-6


def test_another_scale_of_the_weights_is_no_fold():
    weight, norm = numbers(1, 6, 3, 3, 3), batch_norm(6)
    wrong, _ = factor_and_shift({**norm, "bn.running_var": norm["bn.running_var"][::-1]}, np.float32(0), 1e-5)
    checks, _ = compared({"conv.weight": weight, **norm}, {"v1": weight * over(wrong, 4, 0)})
    assert checks["conv.weight"].state == "different"
    assert checks["bn.running_var"].state == "missing"


# Quantized


def quantized(array, step, zero=0, dtype=np.int8):
    limits = np.iinfo(dtype)
    return np.clip(np.rint(array / step) + zero, limits.min, limits.max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_dequantized_weights(dtype, axis, turned):
    trained = numbers(1, 12, 20)
    stored = np.ascontiguousarray(trained.T) if turned else trained
    step = np.float32(np.abs(stored).max(None if axis is None else 1 - axis) / 127)
    zero = np.array(0 if dtype == np.int8 else 128, dtype) + np.zeros(step.shape, dtype)
    codes = quantized(
        stored, step if axis is None else over(step, 2, axis), zero if axis is None else over(zero, 2, axis), dtype
    )
    nodes = [node("DequantizeLinear", "q", "s", "z", **({} if axis is None else {"axis": axis}))]
    check = compared({"fc.weight": trained}, {"q": codes, "s": step, "z": zero}, nodes)[0]["fc.weight"]
    assert (check.state, check.exact, check.initializers) == ("quantized", False, ("q",))
    assert "every value within half a step" in check.words
    values = (codes.astype(float) - (zero if axis is None else over(zero, 2, axis))) * (
        step if axis is None else over(step, 2, axis)
    )
    assert check.largest_difference == np.abs(values - stored).max()
    codes[3, 4] += np.array(2, dtype)
    check = compared({"fc.weight": trained}, {"q": codes, "s": step, "z": zero}, nodes)[0]["fc.weight"]
    assert check.state == "different"
    assert "1 of 240 values" in check.words
    assert check.place == ((4, 3) if turned else (3, 4))


def test_blocks_of_a_dequantization():
    trained = numbers(1, 12, 32)
    step = np.float32(np.abs(trained.reshape(12, 4, 8)).max(-1) / 127)
    codes = quantized(trained, np.repeat(step, 8, 1))
    nodes = [node("DequantizeLinear", "q", "s", axis=1, block_size=8)]
    check = compared({"w": trained}, {"q": codes, "s": step}, nodes)[0]["w"]
    assert check.state == "quantized"
    assert "in blocks" in check.words


@pytest.mark.parametrize("by_column", [False, True])
def test_integer_products_whose_scale_is_read_later(by_column):
    trained = numbers(1, 20, 12)
    step = np.float32(np.abs(trained).max(0 if by_column else None) / 127)
    nodes = [node("MatMulInteger", "x", "q", "xz", "z"), node("Mul", "xs", "s")]
    constants = {"q": quantized(trained, step), "z": np.int8(0), "s": step}
    check = compared({"w": trained}, constants, nodes)[0]["w"]
    assert check.state == "quantized"
    assert "every value within half a step" in check.words


def test_four_bits_in_blocks_of_com_microsoft():
    trained = numbers(1, 6, 64)
    blocks = trained.reshape(6, 2, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / np.float32(7)
    codes = (np.rint(blocks / step) + 8).astype(np.uint8)
    packed = (codes[..., ::2] | (codes[..., 1::2] << 4)).astype(np.uint8)
    nodes = [node("MatMulNBits", "x", "q", "s", N=6, K=64, bits=4, block_size=32)]
    check = compared({"w": trained}, {"q": packed, "s": step.reshape(-1)}, nodes)[0]["w"]
    assert check.state == "quantized"
    assert "uint4" in check.words


@pytest.mark.parametrize("op_type", ["QLinearConv", "DequantizeLinear"])
def test_folded_and_quantized_with_its_bias(op_type):
    weight, norm = numbers(1, 6, 3, 3, 3), batch_norm(6)
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-3)
    folded = weight * over(factor, 4, 0)
    step, input_step = np.float32(np.abs(folded).max() / 127), np.float32(0.02)
    constants = {"q": quantized(folded, step), "s": step, "z": np.int8(0), "xs": input_step, "xz": np.uint8(3)}
    constants |= {
        "b": quantized(shift.astype(float), float(step) * float(input_step), dtype=np.int32),
        "bs": step * input_step,
    }
    nodes = [node("QLinearConv", "x", "xs", "xz", "q", "s", "z", "xs", "xz", "b")]
    if op_type == "DequantizeLinear":
        nodes = [node("DequantizeLinear", "q", "s", "z"), node("DequantizeLinear", "b", "bs")]
    checks, _ = compared({"conv.weight": weight, **norm}, constants, nodes)
    assert [check.state for check in checks.values()] == ["quantized", "folded", "quantized", "folded", "folded"]
    assert "bn folded in, quantized to int8: every value within half a step" in checks["conv.weight"].words
    assert checks["bn.bias"].initializers == ("b",)


def test_a_tied_weight_is_quantized_once():
    trained = numbers(1, 12, 20)
    step = np.float32(np.abs(trained).max() / 127)
    nodes = [node("DequantizeLinear", "q", "s")]
    checks, comparison = compared({"a.w": trained, "b.w": trained}, {"q": quantized(trained, step), "s": step}, nodes)
    assert [check.state for check in checks.values()] == ["quantized", "quantized"]
    assert checks["b.w"].parameter == "b.w"
    assert comparison.owners == {}


def test_the_layer_before_is_found_by_the_run():
    weights = {"a.weight": numbers(1, 6, 6), "b.weight": numbers(2, 6, 6)}
    norm = batch_norm(6)
    factor, shift = factor_and_shift(norm, np.float32(0), 1e-5)
    layers = [
        layer("a", "Linear", "weight", reads=0, gives=1),
        layer("b", "Linear", "weight", reads=0, gives=2),
        LayerRecord("bn", "BatchNorm1d", (1,), (3,), tuple(norm)),
    ]
    constants = {"v1": weights["a.weight"] * factor[:, None], "v2": shift, "v3": weights["b.weight"]}
    checks, _ = compared({**weights, **norm}, constants, layers=layers)
    assert (checks["a.weight"].state, checks["b.weight"].state) == ("folded", "identical")
