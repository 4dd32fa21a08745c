"""The layer that a node belongs to, by the names that exporters write."""

from __future__ import annotations

import pytest
from onnx import helper

from actconform.checking.trained.source_names import NAMESPACE, SCOPES, SourceNames, framework_function, scopes

LAYERS = ["", "encoder", "encoder.layers.0.norm", "encoder.layers.1.norm", "head", "head:add", "model/dense"]


def node(name="", **metadata):
    made = helper.make_node("Add", ["a", "b"], ["c"], name)
    for key, value in metadata.items():
        made.metadata_props.add(key={"scopes": SCOPES, "namespace": NAMESPACE}[key], value=value)
    return made


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/encoder/layers.0/norm/Add", "encoder.layers.0.norm"),
        ("/encoder/layers.1/norm/norm2/Add:0", "encoder.layers.1.norm"),  # a function within
        ("StatefulPartitionedCall/model/dense/BiasAdd", "model/dense"),
        ("StatefulPartitionedCall/dense/BiasAdd", "model/dense"),  # the only layer that ends so
        ("/norm/Add", ""),  # two layers end so, and neither wholly
        ("/layers.1/norm/Add", "encoder.layers.1.norm"),
        ("/other/layers.7/norm/Add", ""),
        ("/head/Add", "head"),
        ("/Add", ""),
        ("head", ""),  # no path: a name that a person gave
        ("", ""),
    ],
)
def test_the_name_of_a_node_is_a_path_to_its_layer(name, layer):
    assert SourceNames(LAYERS).layer(node(name)) == layer


@pytest.mark.parametrize(
    ("written", "layer", "function"),
    [
        ("['', 'encoder', 'encoder.layers.0.norm', 'layer_norm_1']", "encoder.layers.0.norm", "layer_norm"),
        ("['', 'encoder', 'encoder.dropout', 'dropout']", "encoder", "dropout"),  # the innermost that was recorded
        ("['', 'add_12']", "", "add"),
        ("['head']", "", "head"),  # the last is a function
        ("'head'", "", ""),
        ("[head", "", ""),
        ("[" * 3000, "", ""),
    ],
)
def test_the_scopes_of_torch_are_read(written, layer, function):
    made = node(scopes=written)
    assert SourceNames(LAYERS).layer(made) == layer
    assert framework_function(made) == function


def test_the_namespace_of_older_versions_is_read():
    written = ": Net/encoder: Encoder/encoder.layers.1.norm: LayerNorm/layer_norm_3: aten.layer_norm.default"
    made = node("n", namespace=written)
    assert scopes(made) == ["", "encoder", "encoder.layers.1.norm", "layer_norm_3"]
    assert SourceNames(LAYERS).layer(made) == "encoder.layers.1.norm"
    assert framework_function(made) == "layer_norm"


def test_scopes_go_before_the_name():
    made = node("/head/Add", scopes="['', 'encoder.layers.0.norm', 'add']")
    assert SourceNames(LAYERS).layer(made) == "encoder.layers.0.norm"
    assert SourceNames(LAYERS).layer(node("/head/Add", scopes="['', 'gone', 'add']")) == "head"


def test_a_graph_without_metadata_has_no_scopes():
    assert scopes(node("/head/Add")) == []
    assert framework_function(node("/head/Add")) == ""
