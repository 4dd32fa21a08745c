"""Operations of models, counted by hand, and from the shapes of the graphs that we write."""

from __future__ import annotations

import math

import onnx
import pytest

from actconform.bench.flops import flops
from actconform.catalog.models.zoo import networks
from actconform.onnx.author.model import author_model

MODELS = {model.name: model for model in networks()}
BATCH = 3


def test_a_perceptron_by_hand():
    each = 20 * 16 + 16 * 12 + 12 * 16 + 16 * 12 + 12 * 8 + 8 * 1
    assert flops(MODELS["mlp-relu"], 1, "forward") == 2 * each
    assert flops(MODELS["mlp-relu"], 32, "forward") == 32 * 2 * each
    assert flops(MODELS["mlp-relu"], 32, "forward+backward") == 3 * 32 * 2 * each


def test_a_convolutional_network_by_hand():
    each = 12 * 12 * 6 * (3 * 3 * 3) + 4 * 4 * 6 * (3 * 3 * 6) + (2 * 2 * 6) * 8 + 8 * 2
    assert flops(MODELS["image-cnn-softmax2"], 1, "forward") == 2 * each


def test_grouped_and_transposed_convolutions_by_hand():
    each = 9 * 4 * 6 + 9 * 9 * (2 * 3 * 2) + 9 * 9 * (1 * 2 * 3) + 6 * 9 * 3 * 2
    assert flops(MODELS["image-groups"], 1, "forward") == 2 * each


def test_an_attention_block_by_hand():
    each = 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 32
    assert flops(MODELS["attention-block"], 1, "forward") == 2 * each


def test_recurrent_layers_by_hand():
    each = 4 * (16 * (5 + 4) + 9 * (4 + 3))
    each += 4 * 3 + 4 * 3 + 3 * 4  # scores, what is read, head
    assert flops(MODELS["token-tagger"], 1, "forward") == 2 * each


def test_a_memory_by_its_graph_which_shifts_by_a_product_of_7_by_3():
    model = MODELS["ntm-addressing"]
    assert flops(model, BATCH, "forward") == 2 * (counted(author_model(model, "f32").model) - BATCH * 7 * 3)


# Graphs of memories write outer products and shifts as products of matrices, which the layers are not.
@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("dnc", "ntm"))])
def test_models_by_their_graphs(name):
    model = MODELS[name]
    assert flops(model, BATCH, "forward") == 2 * counted(author_model(model, "f32").model)


def counted(graph):
    """The multiply-adds of a graph's MatMul, Gemm, Conv and ConvTranspose at BATCH, from inferred shapes."""
    read = onnx.load_from_string(graph)
    for value in (*read.graph.input, *read.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = BATCH
    graph = onnx.shape_inference.infer_shapes(read, data_prop=True).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    total = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        if node.op_type in ("LSTM", "GRU"):
            steps, batch, _ = shapes[node.input[0]]
            total += steps * batch * sum(math.prod(shapes[matrix]) for matrix in node.input[1:3])
        if node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    return total
