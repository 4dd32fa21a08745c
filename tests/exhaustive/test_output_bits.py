"""The outputs at a chunk: their digest is that of the sweep, and differing inputs are those that plain NumPy counts."""

from __future__ import annotations

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.exhaustive.measure import SweptFunction, measured_chunk
from actconform.exhaustive.output_bits import differing_inputs, outputs_of_chunk
from actconform.exhaustive.patterns import binades_of, patterns
from actconform.exhaustive.statistics import CountedInputs

ONES, SPECIAL = 63, 127  # chunks: |x| in [0.5, 2); the largest numbers, infinity, NaN


def wide(x):
    with np.errstate(invalid="ignore"):  # signalling NaN
        return np.tanh(x.astype(np.float64)).astype(np.float32)


def narrow(x):
    with np.errstate(invalid="ignore"):
        return np.float32(1) - np.float32(2) / (np.exp(np.float32(2) * x) + np.float32(1))


def inputs(chunk):
    return np.concatenate([patterns(binade, "sample") for binade in binades_of(chunk)])


def test_the_digest_is_that_of_the_sweep_though_the_program_uses_its_output_again():
    kept = np.empty(1 << 15, np.float32)

    def call(x):
        kept[:] = wide(x)
        return kept

    outputs, sha256 = outputs_of_chunk(ONES, "sample", call)
    assert outputs.tobytes() == wide(inputs(ONES).view(np.float32)).tobytes()
    assert sha256 == measured_chunk(SweptFunction.of(KERNELS["tanh"], "value"), ONES, "sample", wide)[1]


def test_inputs_whose_outputs_differ_are_counted_as_plain_numpy_counts_them():
    first, second = (outputs_of_chunk(ONES, "sample", function)[0] for function in (wide, narrow))
    bits = inputs(ONES)
    x = bits.view(np.float32)
    differing = bits[[one.tobytes() != two.tobytes() for one, two in zip(wide(x), narrow(x), strict=True)]]
    wanted = CountedInputs(len(differing), f"0x{differing[0]:08x}", f"0x{differing[-1]:08x}")
    assert 0 < wanted.count < bits.size
    assert differing_inputs(ONES, "sample", first, second) == wanted


def test_every_nan_is_alike_and_zeros_have_signs():
    def other_nan(x):
        y = wide(x)
        y.view(np.uint32)[np.isnan(y)] = 0xFFC00001
        return y

    first, second = (outputs_of_chunk(SPECIAL, "sample", function)[0] for function in (wide, other_nan))
    assert differing_inputs(SPECIAL, "sample", first, second) == CountedInputs()
    zeros = np.zeros(1 << 16, np.float32)
    assert differing_inputs(ONES, "sample", zeros, -zeros).count == 1 << 16
