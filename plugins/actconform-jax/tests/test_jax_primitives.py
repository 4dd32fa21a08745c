"""Every primitive that JAX offers to be measured computes the function of its name, in every dtype."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.accuracy.primitives import PRIMITIVES
from actconform_jax import JaxBackend

UNIT = {np.float32: 2.0**-24, np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8}


@pytest.fixture(scope="module")
def library():
    return JaxBackend().library()


def test_it_is_named_by_facts_that_there_are(library):
    assert set(library.when) <= set(JaxBackend().facts())
    assert set(library.primitives) <= set(PRIMITIVES)
    assert {"exp", "tanh", "sigmoid", "sqrt", "division"} <= set(library.primitives)


@pytest.mark.parametrize("dtype", UNIT)
def test_primitives_are_the_functions_of_their_names(library, dtype):
    for name, compute in library.primitives.items():
        primitive = PRIMITIVES[name]
        x = np.linspace(0.3, 2.0, 67).astype(dtype) * dtype(-1.0 if name == "erf_gelu" else 1.0)
        operands = (x, x[::-1].copy()) if primitive.operands == 2 else (x,)
        got = compute(*operands)
        assert got.dtype in (dtype, np.float64), name
        truth = primitive.truth(*(operand.astype(np.float64) for operand in operands))
        np.testing.assert_allclose(got.astype(np.float64), truth, rtol=0, atol=24.0 * UNIT[dtype], err_msg=name)
