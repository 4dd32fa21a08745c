"""The noise of a format in a check: which graphs have one, and that the tensors of runtimes stand beside it."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from small_models import ENCODER, QUANTIZED, TOKENS, checked_all, made, numbers, sample_of

from actconform.checking.flatten import flatten
from actconform.checking.low_precision import is_low_precision, lowered, lowered_sample
from actconform.checking.noise_columns import judged_by_noise, noise_of
from actconform.checking.result import ModelFault


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_tensor_that_a_runtime_shows_stands_beside_its_noise_after_the_check(dtype, runtime):
    model = lowered(ENCODER, dtype, between_casts=True).model
    sample = sample_of(lowered_sample(TOKENS, dtype))
    runs = runtime("ort-cpu")
    result = checked_all(model, [sample], runs)
    noise = noise_of(sample, [runs], [], result, None)
    assert noise.format == dtype
    assert all([got.name for got in layer.got] == ["ort-cpu"] for layer in noise.layers)
    assert noise.beyond == {}
    assert f"ort-cpu is within the noise of {dtype}" in " ".join(noise.summary)


def test_a_runtimes_fault_says_that_what_it_gives_is_within_the_noise_all_the_same_or_not(runtime):
    text = "(float[n, 4] x) => (float[n, 2] y) { q = QuantizeLinear (x, s, z)  m = MatMulInteger (q, w, z)  y = Cast <to = 1> (m) }"
    weights = np.random.default_rng(0).integers(-60, 60, (4, 2)).astype(np.int8)
    model = made(text, {"s": np.float32(0.01), "z": np.uint8(128), "w": weights})
    sample = sample_of({"x": numbers(1, 5, 4, scale=0.3)})
    result = checked_all(model, [sample], runtime("ort-cpu"))
    noise = noise_of(sample, [runtime("ort-cpu")], [], result, None)
    fault = ModelFault(blame="runtime", node="m", op_type="MatMulInteger", sample=0, evidence=("off",))
    faulty = replace(result, noise=noise, runtimes=[replace(result.runtimes[0], status="not explained", fault=fault)])
    _, words = judged_by_noise(faulty, []).runtimes[0].fault.evidence
    assert "within the noise of uint8 all the same" in words
    beyond = replace(faulty, noise=replace(noise, beyond={"ort-cpu": "m"}))
    assert judged_by_noise(beyond, []).runtimes[0].fault == fault


def test_float16_and_quantized_graphs_are_in_low_precision_and_float32_is_not():
    assert is_low_precision(flatten(lowered(ENCODER).model, lowered_sample(TOKENS)))
    assert is_low_precision(flatten(QUANTIZED, TOKENS))
    assert not is_low_precision(flatten(ENCODER, TOKENS))
