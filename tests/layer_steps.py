"""What the tests of layers' formulas share: one reading, its value, what is pulled back, and complex steps through all that it reads."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer


def read(kind, x, parameters=None, **setting):
    return Reading(Layer(name="it", kind=kind, inputs=("x",), settings=setting), [x], parameters or {}, training=False)


def value(reading):
    return formula_of(reading.layer).forward(reading)


def pulled(reading, g):
    """Return the cotangents of x and of the parameters by name, each of the shape of what it belongs to."""
    (d_x,), parameters = formula_of(reading.layer).vjp(reading, value(reading), g)
    found = {"x": d_x, **parameters}
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in {"x": reading.inputs[0], **reading.parameters}.items()
    }
    return found


def steps(reading, g):
    """Return what `pulled` must return, by a complex step at every element: exact to rounding."""
    found = {}
    for name, array in {"x": reading.inputs[0], **reading.parameters}.items():
        found[name] = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1e-30j
            if name == "x":
                stepped = reading._replace(inputs=[moved])
            else:
                stepped = reading._replace(parameters={**reading.parameters, name: moved})
            found[name][index] = np.sum(g * value(stepped).imag) / 1e-30
    return found


def agree(reading, rng):
    g = rng.normal(size=value(reading).shape)
    ours, stepped = pulled(reading, g), steps(reading, g)
    for name, array in stepped.items():
        assert_allclose(ours[name], array, rtol=1e-11, atol=1e-12, err_msg=name)
    return g, ours
