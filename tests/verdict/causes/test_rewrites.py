"""Graphs as optimizers rewrite them, where they do and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser

from actconform.errors import RegisterError
from actconform.verdict.causes.register import read_register
from actconform.verdict.causes.rewrites import REWRITES

rewrite = REWRITES["pad-into-max-pool"]
rescale = REWRITES["softmax-of-whole-reciprocal"]
SIDES = [0, 0, 1, 2, 0, 0, 3, 4]
POOL = "MaxPool <kernel_shape = [5, 5]>"


def graph_of(nodes: str, sides=SIDES, value=0.0, outputs: str = "float[a, b, c, d] y"):
    graph = parser.parse_graph(f"g (float[1, 2, 6, 6] x, float v) => ({outputs}) {{ {nodes} }}")
    graph.initializer.append(numpy_helper.from_array(np.int64(sides), "sides"))
    graph.initializer.append(numpy_helper.from_array(np.float32(value), "value"))
    return graph


@pytest.mark.parametrize(
    ("pad", "own", "pads"),
    [
        ("Pad (x, sides)", "", [1, 2, 3, 4]),
        ("Pad (x, sides, value)", "", [1, 2, 3, 4]),
        ('Pad <mode = "constant"> (x, sides)', "pads = [0, 1, 0, 0], ", [1, 3, 3, 4]),
        ("Pad <pads = [0, 0, 1, 2, 0, 0, 3, 4], value = 0.0> (x)", "", [1, 2, 3, 4]),
    ],
)
def test_a_pad_of_zeros_is_added_to_what_the_pool_pads(pad: str, own: str, pads: list[int]):
    graph = graph_of(f"p = {pad}  y = {POOL.replace('<', '<' + own)} (p)")
    assert rewrite(graph)
    (pool,) = graph.node
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
    assert (pool.op_type, list(pool.input), list(pool.output)) == ("MaxPool", ["x"], ["y"])
    assert attributes == {"kernel_shape": [5, 5], "pads": pads}


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        (f"p = Pad (x, sides, value)  y = {POOL} (p)", {"value": 1.0}),
        (f"p = Pad (x, sides, v)  y = {POOL} (p)", {}),
        (f'p = Pad <mode = "reflect"> (x, sides)  y = {POOL} (p)', {}),
        (f"p = Pad (x, sides)  y = {POOL} (p)", {"sides": [0, 0, -1, 1, 0, 0, 1, 1]}),
        (f"p = Pad (x, sides)  y = {POOL} (p)", {"sides": [1, 0, 1, 1, 0, 0, 1, 1]}),
        (f"p = Pad (x, sides, value, axes)  y = {POOL} (p)", {}),
        (f"p = Pad (x, sides)  y, i = {POOL} (p)", {}),
        (f"p = Pad (x, sides)  y = {POOL} (p)  z = Relu (p)", {}),
        (f"p = Pad (x, sides)  y = {POOL} (p)", {"outputs": "float[a, b, c, d] y, float[e, f, g, h] p"}),
        ('p = Pad (x, sides)  y = MaxPool <auto_pad = "VALID", kernel_shape = [5, 5]> (p)', {}),
        ("p = Pad (x, sides)  y = AveragePool <kernel_shape = [5, 5]> (p)", {}),
        ("p = Pad (x, sides)  y = local.MaxPool <kernel_shape = [5, 5]> (p)", {}),
    ],
    ids=[
        "value",
        "open value",
        "mode",
        "negative",
        "batch",
        "axes",
        "indices",
        "read",
        "output",
        "auto",
        "op",
        "domain",
    ],
)
def test_what_the_optimizer_leaves_is_left(nodes: str, more):
    graph = graph_of(nodes, **more)
    before = graph.SerializeToString()
    assert not rewrite(graph)
    assert graph.SerializeToString() == before


def test_a_register_names_rewritings_that_there_are():
    text = '[[cause]]\nid = "a"\nreason = "b"\nlink = "unreported"\nsince = "0.2"\nroutes = ["*"]\nrewrite = "{}"\n'
    assert read_register(text.format("pad-into-max-pool"), "here").causes[0].rewrite == "pad-into-max-pool"
    with pytest.raises(
        RegisterError, match="no rewriting is called 'pad-into-maxpool'; did you mean pad-into-max-pool"
    ):
        read_register(text.format("pad-into-maxpool"), "here")


QUANTIZED = "x = DequantizeLinear (q, s, z)  p = Softmax (x)  y = QuantizeLinear (p, t, z)"


def softmax_of(nodes: str, scale=1 / 255, outputs: str = "uint8[a, b] y"):
    graph = parser.parse_graph(f"g (uint8[2, 6] q, float v) => ({outputs}) {{ {nodes} }}")
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "s"))
    graph.initializer.append(numpy_helper.from_array(np.float32(scale), "t"))
    graph.initializer.append(numpy_helper.from_array(np.uint8(0), "z"))
    return graph


@pytest.mark.parametrize(
    "nodes",
    [QUANTIZED, f"{QUANTIZED}  w = DequantizeLinear (y, t, z)", "y = com.microsoft.QLinearSoftmax (q, s, z, t, z)"],
)
@pytest.mark.parametrize(("scale", "levels"), [(1 / 255, 254), (0.9 / 255, 283), ([1 / 255], 254), (0.6, 1)])
def test_a_quantized_softmax_has_a_whole_number_of_levels_to_1(nodes: str, scale, levels: int):
    graph = softmax_of(nodes, scale)
    assert rescale(graph)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    place = {"QuantizeLinear": 1, "QLinearSoftmax": 3}
    (rescaled,) = (constants[node.input[place[node.op_type]]] for node in graph.node if node.op_type in place)
    assert rescaled == np.float32(1) / np.float32(levels)
    assert [node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"] in ([], ["s"], ["s", "t"])


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        (QUANTIZED, {"scale": 1 / 256}),
        (QUANTIZED, {"scale": 1.5}),
        (QUANTIZED, {"scale": 0.0}),
        (QUANTIZED, {"scale": [1 / 255] * 6}),
        (QUANTIZED.replace("t, z", "v, z"), {}),
        ("x = Cast <to = 1> (q)  p = Softmax (x)  y = QuantizeLinear (p, t, z)", {}),
        (QUANTIZED.replace("Softmax", "Sigmoid"), {}),
        (QUANTIZED.replace("Softmax", "local.Softmax"), {}),
        (f"{QUANTIZED}  r = Relu (p)", {}),
        (QUANTIZED, {"outputs": "uint8[a, b] y, float[c, d] p"}),
        ("y = local.QLinearSoftmax (q, s, z, t, z)", {}),
    ],
    ids=["whole", "above 1", "zero", "axis", "input", "float", "sigmoid", "domain", "read twice", "output", "foreign"],
)
def test_other_softmaxes_stay(nodes: str, more):
    graph = softmax_of(nodes, **more)
    before = graph.SerializeToString()
    assert not rescale(graph)
    assert graph.SerializeToString() == before
