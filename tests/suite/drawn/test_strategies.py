"""What the strategies draw: graphs that the standard takes, of many shapes and attributes, the same for a seed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from actconform.onnx.evaluate.error_bounds import has_error_bound
from actconform.suite.drawn import families  # noqa: F401  they register strategies
from actconform.suite.drawn.judging import expected_outputs
from actconform.suite.drawn.node import DrawnNode, InvalidDrawError
from actconform.suite.drawn.registry import STRATEGIES, drawn_operator
from actconform.suite.drawn.search import draw_examples

EXAMPLES = 6


def attributes(example):
    node = example.part.model.graph.node[0]
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def arrays(example):
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in example.part.model.graph.initializer}
    return constants | dict(example.part.inputs)


def drawn(op_type, count=60):
    return draw_examples(STRATEGIES[op_type], count, 3).examples


@pytest.mark.parametrize("op_type", sorted(STRATEGIES))
def test_what_is_drawn_is_of_the_standard_and_has_a_truth(op_type):
    examples, invalid = draw_examples(STRATEGIES[op_type], EXAMPLES, 1)
    assert len(examples) == EXAMPLES
    assert invalid == 0
    assert has_error_bound(op_type)
    for example in examples:
        onnx.checker.check_model(example.part.model, full_check=True)
        (node,) = example.part.model.graph.node
        assert node.op_type == op_type
        with np.errstate(all="ignore"):
            assert expected_outputs(example.part, {}).keys() == set(node.output)
    assert len({example.digest for example in examples}) == EXAMPLES


def test_a_graph_that_the_standard_does_not_take_is_told_from_others():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(InvalidDrawError, match="MatMul at opset 21"):
        DrawnNode("MatMul", 21, (x, x), {}).model()
    with pytest.raises(InvalidDrawError, match="Relu at opset 13"):
        DrawnNode("Relu", 13, (np.zeros(2, np.int64),), {}).model()


def test_a_seed_draws_the_same_graphs_and_another_seed_others():
    strategy = STRATEGIES["Conv"]
    first = [example.digest for example in draw_examples(strategy, 10, 5).examples]
    assert first == [example.digest for example in draw_examples(strategy, 10, 5).examples]
    assert first != [example.digest for example in draw_examples(strategy, 10, 6).examples]


def test_shapes_of_all_ranks_empty_and_huge_ones_and_special_values_are_drawn():
    examples = drawn("Max", 200)
    shapes = [array.shape for example in examples for array in arrays(example).values()]
    assert {len(shape) for shape in shapes} == set(range(6))
    assert any(0 in shape for shape in shapes)
    assert any(100_000 in shape for shape in shapes)
    assert {example.dtype for example in examples} >= {"float32", "float16", "float64", "bfloat16", "int64", "uint8"}
    floats = [array for example in examples for array in arrays(example).values() if array.dtype == np.float32]
    values = np.concatenate([array.ravel() for array in floats])
    assert np.isnan(values).any()
    assert np.isinf(values).any()
    assert (np.signbit(values) & (values == 0)).any()
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()
    assert (values == np.finfo(np.float32).max).any()
    integers = [array for example in examples for array in arrays(example).values() if array.dtype == np.int64]
    assert any((array == np.iinfo(np.int64).min).any() for array in integers)
    assert {value.version for example in examples for value in example.part.model.opset_import} >= {13, 18, 21, 23}
    constants = {len(example.part.model.graph.initializer) > 0 for example in examples}
    assert constants == {False, True}


@pytest.mark.parametrize(
    ("op_type", "names"),
    {
        "Conv": "strides dilations pads auto_pad group kernel_shape",
        "ConvTranspose": "strides dilations pads output_padding group",
        "MaxPool": "strides dilations pads ceil_mode storage_order auto_pad",
        "AveragePool": "count_include_pad ceil_mode pads dilations",
        "ReduceSum": "keepdims noop_with_empty_axes",
        "Gemm": "transA transB alpha beta",
        "Resize": "mode coordinate_transformation_mode nearest_mode cubic_coeff_a antialias exclude_outside",
        "Pad": "mode",
        "TopK": "axis largest",
        "ArgMax": "axis keepdims select_last_index",
        "LayerNormalization": "axis epsilon",
    }.items(),
)
def test_the_attributes_of_an_operator_are_drawn(op_type, names):
    stated = [attributes(example) for example in drawn(op_type)]
    for name in names.split():
        values = {repr(each.get(name)) for each in stated}
        assert len(values) > 1, name


def test_axes_are_counted_from_both_ends():
    axes = {attributes(example).get("axis", 0) for example in drawn("Concat")}
    assert min(axes) < 0 < max(axes)


def test_integers_are_divided_by_no_zero_and_places_of_a_scatter_are_different():
    for example in drawn("Div", 100):
        if example.dtype.startswith(("int", "uint")):
            assert (arrays(example)["i1"] != 0).all()
    for example in drawn("ScatterND", 60):
        if attributes(example).get("reduction", b"none") == b"none":
            data, places = (arrays(example)[name] for name in ("i0", "i1"))
            bounds = np.array(data.shape[: places.shape[-1]])
            rows = [tuple(row) for row in (places % bounds).reshape(-1, places.shape[-1])]
            assert len(set(rows)) == len(rows)


def test_two_strategies_for_an_operator_are_refused():
    with pytest.raises(ValueError, match="two strategies for operator Conv"):
        drawn_operator("Conv")(STRATEGIES["Conv"].draw)


def test_at_least_a_hundred_operators_are_drawn_by_family():
    assert len(STRATEGIES) >= 100
    assert {strategy.family for strategy in STRATEGIES.values()} == {
        "casts", "elementwise", "indexing", "moving", "normalization", "products", "quantized", "reductions", "resizing", "windows",
    }  # fmt: skip


def test_the_document_lists_the_operators_by_family():
    text = (Path(__file__).parents[3] / "docs/drawn-operators.md").read_text(encoding="utf-8")
    listed = text.partition("## What is drawn")[2].partition("\n## ")[0]
    lists = dict(re.findall(r"^- (\w+): ((?:.|\n  )+)", listed, re.MULTILINE))
    of_families: dict[str, set[str]] = {}
    for strategy in STRATEGIES.values():
        of_families.setdefault(strategy.family, set()).add(strategy.op_type)
    assert {family: set(re.split(r",\s+", names)) for family, names in lists.items()} == of_families
