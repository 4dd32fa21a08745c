"""The register of ONNX Runtime's operators against ONNX Runtime's own schemas: inputs, outputs, defaults."""

from __future__ import annotations

import inspect
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from actconform.onnx.evaluate.contrib.registry import CONTRIB
from actconform.onnx.evaluate.error_bounds import has_error_bound


@cache
def schemas():
    return {(schema.domain, schema.name): schema for schema in get_all_operator_schema()}


def default_of(attribute):
    """Return the default, in the way that onnx reads attributes; None where there is none."""
    if attribute.required or not attribute._default_value:
        return None
    value = helper.get_attribute_value(onnx.AttributeProto.FromString(attribute._default_value))
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("operator", CONTRIB, ids="::".join)
def test_an_operator_is_registered_as_its_schema_has_it(operator):
    if operator not in schemas():
        pytest.skip("this version of ONNX Runtime does not have the operator")
    schema, registered = schemas()[operator], CONTRIB[operator]
    assert has_error_bound(operator[1], operator[0])
    assert len(registered.types) >= len(schema.outputs)  # older versions have fewer
    stated = {name: default_of(attribute) for name, attribute in schema.attributes.items()}
    for name in stated.keys() & registered.defaults.keys():  # operators that share a definition have all its defaults
        value = registered.defaults[name]
        if stated[name] is not None:
            assert np.float32(value) == np.float32(stated[name]) if isinstance(value, float) else value == stated[name]
    left_out = {name: value for name, value in stated.items() if value and name not in registered.defaults}
    assert left_out.keys() <= {
        "auto_pad",
        "group",
        "stash_type",
        "k_quant_type",
        "v_quant_type",
        "smooth_softmax",
        "seed",
    }
    parameters = list(inspect.signature(registered.define).parameters.values())[2:]
    if all(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters):
        assert len(parameters) >= len(schema.inputs)
