"""The overlay for Model Explorer has a number for every node that was judged, in the form that it reads."""

from __future__ import annotations

import json

import made_check
import pytest

from actconform.report.check.node_data import LARGEST, THRESHOLDS, node_data, write_node_data


def test_a_node_has_its_largest_ratio_over_runtimes_levels_and_samples():
    low, high = made_check.tensor("a", 0.25), made_check.tensor("a", 0.75)
    levels = [made_check.level(tensors=[low]), made_check.level(tensors=[high, made_check.tensor("b", 0.0)])]
    other = made_check.runtime("openvino", levels=[made_check.level("", tensors=[made_check.tensor("b", 3.14159265)])])
    data = node_data(made_check.check(made_check.runtime(levels=levels), other))
    assert data["results"] == {"a": {"value": 0.75}, "b": {"value": 3.142}}


@pytest.mark.parametrize("ratio", [float("inf"), float("nan"), 1e300])
def test_every_value_is_a_number_that_json_has_and_has_a_colour(tmp_path, ratio):
    level = made_check.level(tensors=[made_check.tensor(ratio=ratio)])
    path = write_node_data(made_check.check(made_check.runtime(levels=[level])), tmp_path)
    data = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert data["results"]["conv0"]["value"] == LARGEST <= data["thresholds"][-1]["value"]


def test_the_bound_parts_green_from_red():
    values = [value for value, *_ in THRESHOLDS]
    assert values == sorted(values)
    assert 1.0 in values
