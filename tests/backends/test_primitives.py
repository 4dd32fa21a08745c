"""Every primitive that a framework offers to be measured computes the function of its name, in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_truth import DTYPES, UNIT

from actconform.accuracy.primitives import PRIMITIVES

each_framework = pytest.mark.parametrize("framework", ["keras", "torch", "jax"])


@each_framework
def test_a_library_is_named_by_facts_of_its_backend(backend_of, framework):
    backend = backend_of(framework)
    library = backend.library()
    assert set(library.when) <= set(backend.facts())
    assert set(library.primitives) <= set(PRIMITIVES)
    assert {"exp", "tanh", "sigmoid", "sqrt", "division"} <= set(library.primitives)


@pytest.mark.parametrize("dtype", DTYPES)
@each_framework
def test_primitives_are_the_functions_of_their_names(backend_of, framework, dtype):
    scalar = DTYPES[dtype]
    for name, compute in backend_of(framework).library().primitives.items():
        primitive = PRIMITIVES[name]
        x = np.linspace(0.3, 2.0, 67).astype(scalar) * scalar(-1.0 if name == "erf_gelu" else 1.0)
        operands = (x, x[::-1].copy()) if primitive.operands == 2 else (x,)
        values = compute(*operands)
        assert values.dtype in (scalar, np.float64), name
        truth = primitive.truth(*(operand.astype(np.float64) for operand in operands))
        np.testing.assert_allclose(values.astype(np.float64), truth, rtol=0, atol=24.0 * UNIT[dtype], err_msg=name)
