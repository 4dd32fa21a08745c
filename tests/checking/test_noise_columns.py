"""The noise of a format in a check: which graphs have one, and that the tensors of runtimes stand beside it."""

from __future__ import annotations

import pytest
from small_models import ENCODER, QUANTIZED, TOKENS, checked_all, sample_of

from actconform.checking.flatten import flatten
from actconform.checking.low_precision import is_low_precision, lowered, lowered_sample
from actconform.checking.noise_columns import noise_of


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


def test_float16_and_quantized_graphs_are_in_low_precision_and_float32_is_not():
    assert is_low_precision(flatten(lowered(ENCODER).model, lowered_sample(TOKENS)))
    assert is_low_precision(flatten(QUANTIZED, TOKENS))
    assert not is_low_precision(flatten(ENCODER, TOKENS))
