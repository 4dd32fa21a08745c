"""A foreign model is read whole, or refused in words that say what to do."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from actconform.checking import source as source_module
from actconform.checking.source import read_source
from actconform.errors import UsageError

PREFIX = '<ir_version: 8, opset_import: ["" : 17]>\n'
PLAIN = PREFIX + "g (float[b, 3] x) => (float[b, 3] y) { y = Relu(x) }"


def saved(folder: Path, model: onnx.ModelProto | str, name: str = "model.onnx") -> Path:
    model = onnx.parser.parse_model(model) if isinstance(model, str) else model
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, **options) -> str:
    with pytest.raises(UsageError) as refusal:
        read_source(path, **options)
    words = str(refusal.value)
    assert words.startswith(f"{path}: ")
    assert "\n" not in words
    return words


def graph_words(folder: Path, body: str) -> str:
    return refused(saved(folder, PREFIX + body))


def weighty(count: int = 2000) -> onnx.ModelProto:
    """A model whose one weight has `count` elements."""
    weight = numpy_helper.from_array(np.arange(count, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"], name="scale")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, count])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, count])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_data_outside(folder: Path) -> tuple[Path, onnx.ModelProto]:
    """Save a model and its data side by side, and return the file and the model as it lies in it."""
    model = weighty()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx", onnx.load(folder / "model.onnx", load_external_data=False)


def relocated(path: Path, model: onnx.ModelProto, **entries: str) -> Path:
    (tensor,) = model.graph.initializer
    for entry in tensor.external_data:
        entry.value = entries.pop(entry.key, entry.value)
    assert not entries
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_is_read_with_its_signature(tmp_path: Path):
    text = PREFIX + (
        "g (float[b, 3, ?, -1] x, int64[b] ids, float w, float16 free) => (float[b, 3] y, bool[2] flag)"
        "<float w = {2.0}> { x1 = Mul(x, w) y = Relu(x1) flag = Cast<to = 9>(ids) }"
    ).replace(", ?, -1]", "]")
    model = onnx.parser.parse_model(text)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims.add().dim_param = "?"
    dims.add().dim_value = -1
    source = read_source(saved(tmp_path, model))
    assert {name: str(tensor) for name, tensor in source.inputs.items()} == {
        "x": "float32 [b, 3, ?, ?]", "ids": "int64 [b]", "free": "float16 []"
    }  # fmt: skip
    assert list(source.optional_inputs) == ["w"]
    assert str(source.outputs["flag"]) == "bool [2]"
    assert (source.opset, source.nodes, source.has_float_outputs, source.notes) == (17, 3, True, ())
    assert len(source.sha256) == 64


def test_a_model_without_float_outputs_is_taken_and_says_so(tmp_path: Path):
    source = read_source(saved(tmp_path, PREFIX + "g (float[2, 3] x) => (int64[2, 1] y) { y = ArgMax<axis = 1>(x) }"))
    assert not source.has_float_outputs


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (zipped("archive/data.pkl", "archive/data/0"), "torch.save.*torch.onnx.export"),
        (zipped("m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"), "TorchScript"),
        (zipped("config.json", "model.weights.h5"), "Keras"),
        (zipped("x.npy"), "NumPy archive.*--inputs"),
        (zipped("a/model.onnx"), "unpack"),
        (zipped("a"), "zip archive"),
        (b"PK\x03\x04 and no more", "damaged or truncated zip"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5.*Keras"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "TensorFlow Lite"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(100), "ORT format"),
        ((2).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}', "safetensors"),
        (gzip.compress(b"model", mtime=0), "gunzip"),
        (b"GGUF" + bytes(20), "GGUF"),
        (b"<!DOCTYPE html><html><title>404</title>", "HTML"),
        (b'<?xml version="1.0"?>\n<net name="Model0" version="11">', "OpenVINO"),
        (json.dumps({"format": "layers-model"}).encode(), "JSON"),
        (PLAIN.encode(), "binary format"),
        (b'{"irVersion": "8", "graph": {}}', "binary format"),
        ("just a näme\n".encode(), "text file"),
        (b"\xff\xfe\x01\x02" * 40, "no ONNX model"),
        (b"\x08\x08\x12\x04", "truncated"),
        (helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]).SerializeToString(), "a tensor.*--inputs"),
        (
            onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString(),
            "without a graph",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # zip and gzip hold the time
)
def test_what_is_no_model_is_recognized_by_its_content(tmp_path: Path, content, words):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert re.search(words, refused(path))


MAKE = "def make(seed=0, *, deep=True):\n    return '\\d'\n"
OTHERS = "def train(data): ...\ndef _hidden(): ...\ndef plot(): ...\nclass Net: ...\nasync def load(): ...\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MAKE + OTHERS, "name the function in it that makes the model: net:make$"),
        (MAKE + "def build_small(): ...\n", "net:make or net:build_small$"),
        ("def small(): ...\n", "makes the model: net:small$"),
        ("def make(size): ...\n", "takes no arguments and returns the model: net:make$"),
        ("def make(:", "takes no arguments and returns the model: net:make$"),
    ],
    ids=["one of others", "two", "another name", "arguments", "broken"],
)
def test_of_a_python_file_the_function_that_makes_a_model_is_named(tmp_path: Path, monkeypatch, recwarn, text, words):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(text)
    assert re.search(f"^net.py: is a Python file: .*{words}", refused(Path("net.py")))
    Path("sub").mkdir()
    Path("sub/net.py").write_text(text)
    assert re.search(words.replace("net:", "sub.net:"), refused(Path("sub/net.py")))
    assert "from the folder where" in refused(tmp_path / "net.py")
    assert not recwarn


def test_a_truncated_model_is_refused_wherever_it_ends(tmp_path: Path):
    content = saved(tmp_path, PLAIN).read_bytes()
    for end in range(1, len(content) - 1, 7):
        (tmp_path / "cut.onnx").write_bytes(content[:end])
        refused(tmp_path / "cut.onnx")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"weights", "is a text file: name the file that model.save('NAME.keras') of Keras wrote, or an .onnx file"),
        (
            zipped("a"),
            "is a zip archive without model.weights.h5, and so no Keras model: name the file that model.save",
        ),
        (zipped("config.json", "model.weights.h5")[:60], "is a damaged or truncated zip archive"),
        (b"", "is empty: fetch it, or save it, again"),
    ],
    ids=["text", "zip", "truncated", "empty"],
)
def test_what_is_named_as_a_keras_model_and_is_none_is_told(tmp_path: Path, content, words):
    (tmp_path / "m.keras").write_bytes(content)
    assert words in refused(tmp_path / "m.keras")


def test_what_is_no_file_is_refused(tmp_path: Path):
    saved(tmp_path, PLAIN, "resnet.onnx")
    assert "no such file; did you mean resnet.onnx" in refused(tmp_path / "resnett.onnx")
    (tmp_path / "net.keras").touch()
    (tmp_path / "resnets.onnx").mkdir()
    assert refused(tmp_path / "resnets.onx").endswith("did you mean resnet.onnx?"), "folders are no models"
    assert refused(tmp_path / "nets.keras").endswith("did you mean net.keras?")
    assert "nor a folder" in refused(tmp_path / "nowhere" / "x.onnx")
    assert "name a model in it (net.keras, resnet.onnx)" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "is a folder" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "saved_model.pb").touch()
    assert "tf2onnx --saved-model" in refused(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "no regular file" in refused(tmp_path / "pipe.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    refused(tmp_path / "loop.onnx")


def test_a_name_that_a_terminal_would_obey_is_escaped(tmp_path: Path):
    with pytest.raises(UsageError) as refusal:
        read_source(tmp_path / "a\x1b[2J.onnx")
    assert "\x1b" not in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("g (float[2] x) => (float[2] x) { }", "no nodes"),
        ("g (float[2] x) => (float[2] y) { y = Relu(z) }", "nothing gives: 'z', read by node -> y"),
        ("g (float[2] x) => (float[2] z) { y = Relu(x) }", "'z', read by the outputs"),
        ("g (float[2] x) => (float[2] y) { y = Relu(x) y = Neg(x) }", "two give the tensor 'y'"),
        ("g (float[2] x) => (float[2] y) { x = Relu(x) y = Neg(x) }", "two give the tensor 'x': an input and node"),
        ("g (float[2] x) => (float[2] y, float[2] y) { y = Neg(x) }", "output more than once: y"),
        ("g (float[2] x) => (float[2] y) { a = Add(x, c) b = Neg(a) c = Neg(b) y = Neg(c) }", "cycle of 3 nodes"),
        (("g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] a) { a = Neg(q) },"
         " else_branch = e () => (float[2] d) { d = Neg(x) }> }"), "nothing gives: 'q'"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_evaluated_is_refused_by_name(tmp_path: Path, body, words):
    path = saved(tmp_path, PREFIX + body)
    assert re.search(words, refused(path))


def test_a_cycle_names_its_nodes_and_no_others(tmp_path: Path):
    words = graph_words(
        tmp_path, "g (float[2] x) => (float[2] y) { p = Neg(x) a = Add(p, c) b = Neg(a) c = Neg(b) y = Neg(c) }"
    )
    assert all(f"-> {name}" in words for name in "abc")
    assert "-> p" not in words
    assert "-> y" not in words


def test_functions_are_checked_as_graphs_are(tmp_path: Path):
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[2] x) => (float[2] y) { y = mine.f(x) }'
        ' <domain: "mine", opset_import: ["" : 17]> f (a) => (b) { b = Neg(lost) }'
    )
    assert "in function f: 'lost'" in refused(saved(tmp_path, text))


def test_operators_that_nobody_defines_are_noted_and_not_refused(tmp_path: Path):
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1, "theirs" : 1, "com.microsoft" : 1]>'
        "g (float[2] x) => (float[2] y) { a = mine.f(x) b = theirs.Odd(a) c = com.microsoft.QuickGelu(b) y = Relu(c) }"
        ' <domain: "mine", opset_import: ["" : 17]> f (a) => (b) { b = Neg(a) }'
    )
    (note, *_) = read_source(saved(tmp_path, text)).notes
    assert note.endswith("which a runtime may know: theirs:Odd")


@pytest.mark.parametrize(("opset", "words"), [(6, "is of opset 6; 7 to"), (99, "up to .* install a newer onnx")])
def test_an_opset_that_is_not_known_is_refused(tmp_path: Path, opset, words):
    path = saved(tmp_path, PLAIN.replace("17", str(opset)))
    assert re.search(words, refused(path))


def test_external_data_are_taken_into_memory_and_into_the_digest(tmp_path: Path):
    path, _ = with_data_outside(tmp_path)
    source = read_source(path)
    (tensor,) = source.model.graph.initializer
    np.testing.assert_array_equal(source.array(tensor), np.arange(2000, dtype=np.float32))
    before, data = source.sha256, tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert read_source(path).sha256 != before


def test_data_of_more_than_protobuf_holds_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, _ = with_data_outside(tmp_path)
    monkeypatch.setattr(source_module, "MOST_BYTES", 4000)
    source = read_source(path)
    (tensor,) = source.model.graph.initializer
    assert not tensor.raw_data
    np.testing.assert_array_equal(source.array(tensor), np.arange(2000, dtype=np.float32))
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(7999)
    assert "8,000 bytes from byte 0" in refused(path)


def test_external_data_elsewhere_are_refused(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    path, model = with_data_outside(folder)
    data = folder / "weights.bin"
    (tmp_path / "outside.bin").write_bytes(data.read_bytes())
    assert "outside the model's folder" in refused(relocated(path, model, location="../outside.bin"))
    assert "absolute path" in refused(relocated(path, model, location=str(data)))
    assert "absolute path" in refused(relocated(path, model, location="C:\\weights.bin"))
    (folder / "link.bin").symlink_to(data)
    assert "is a link" in refused(relocated(path, model, location="link.bin"))
    (folder / "linked").symlink_to(tmp_path)
    assert "is a link" in refused(relocated(path, model, location="linked/outside.bin"))
    assert "is no file" in refused(relocated(path, model, location="gone.bin"))
    refused(relocated(path, model, location="a\x00b"))


def test_external_data_of_other_sizes_are_refused(tmp_path: Path):
    path, model = with_data_outside(tmp_path)
    assert "by their length" in refused(relocated(path, model, length="4"))
    assert "bytes" in refused(relocated(path, model, length="8000", offset="4"))
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    assert "100 bytes" in refused(relocated(path, model, offset="0"))


def test_a_model_that_needs_more_memory_is_refused_with_the_estimate(tmp_path: Path):
    path = saved(tmp_path, weighty())
    words = refused(path, max_memory=2**20)
    assert "GiB" in words
    assert "--max-memory" in words
    assert read_source(path, max_memory=2**40).nodes == 1
    huge = PREFIX + "g (float[1000000, 1000000] x) => (float[1000000, 1000000] y) { y = Relu(x) }"
    assert "are available" in refused(saved(tmp_path, huge))


def test_the_size_of_declared_dimensions_does_not_overflow_the_estimate(tmp_path: Path):
    huge = f"g (float[{2**62}, {2**62}] x) => (float[2] y) {{ y = Relu(x) }}"
    assert "too large for memory" in graph_words(tmp_path, huge)


def test_ten_thousand_nodes_are_read(tmp_path: Path):
    names = ["x", *(f"t{i}" for i in range(10_000))]
    nodes = [helper.make_node("Relu", [before], [after]) for before, after in itertools.pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    path = saved(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert read_source(path).nodes == 10_000


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path):
    words = graph_words(
        tmp_path, "g (seq(float[2]) x) => (float[2] y) { i = Constant<value_int = 0>() y = SequenceAt(x, i) }"
    )
    assert "input 'x' is a sequence" in words


def test_a_name_that_is_no_text_is_refused(tmp_path: Path):
    path = saved(tmp_path, PLAIN.replace("Relu", "Nonesuch"))
    path.write_bytes(path.read_bytes().replace(b"Nonesuch", b"None\xffuch"))
    assert "op_type of a NodeProto" in refused(path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (TensorProto(name="w", data_type=1, dims=[3], raw_data=bytes(11)), r"w holds 11 bytes, and its shape \[3\] needs 12"),
        (TensorProto(name="w", data_type=1, dims=[3], float_data=[1, 2]), r"w holds 2 numbers, and its shape \[3\] needs 3"),
        (TensorProto(name="w", data_type=16, dims=[3], int32_data=[1] * 4), "holds 4 numbers"),
        (TensorProto(name="w", data_type=TensorProto.INT4, dims=[3], int32_data=[1] * 3), "needs 2"),
        (TensorProto(name="w", data_type=1, dims=[-1]), "negative size"),
        (TensorProto(name="w", data_type=99, dims=[1], raw_data=b"1"), "type"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_whole_is_refused(tmp_path: Path, tensor, words):
    model = onnx.parser.parse_model(PLAIN)
    model.graph.initializer.append(tensor)
    assert re.search(words, refused(saved(tmp_path, model)))


def test_tensors_of_every_type_are_whole_as_onnx_writes_them(tmp_path: Path):
    model = onnx.parser.parse_model(PLAIN)
    names = [
        "FLOAT",
        "FLOAT16",
        "BFLOAT16",
        "DOUBLE",
        "INT8",
        "UINT16",
        "INT64",
        "UINT64",
        "BOOL",
        "INT4",
        "UINT4",
        "FLOAT8E4M3FN",
    ]
    for name in names:
        model.graph.initializer.append(helper.make_tensor(name, getattr(TensorProto, name), [3], [1, 0, 1]))
    model.graph.initializer.append(helper.make_tensor("STRING", TensorProto.STRING, [2], [b"a", b"b"]))
    model.graph.initializer.append(helper.make_tensor("COMPLEX64", TensorProto.COMPLEX64, [1], [1j]))
    assert len(read_source(saved(tmp_path, model)).model.graph.initializer) == len(names) + 2


def test_an_element_type_that_onnx_does_not_know_is_refused(tmp_path: Path):
    model = onnx.parser.parse_model(PLAIN)
    model.graph.input[0].type.tensor_type.elem_type = 79
    assert "element type 79" in refused(saved(tmp_path, model))


@pytest.mark.parametrize(
    "body",
    [
        "g (float[2] x) => (float[2] y) { y = Relu(z) z = Neg(x) }",
        (
            "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] a) { a = Neg(b) b = Relu(x) },"
            " else_branch = e () => (float[2] d) { d = Neg(x) }> }"
        ),
    ],
)
def test_nodes_out_of_order_are_sorted_as_runtimes_do(tmp_path: Path, body):
    model = read_source(saved(tmp_path, PREFIX + body)).model
    for graph in (model.graph, *(attribute.g for attribute in model.graph.node[0].attribute)):
        places = {name: place for place, node in enumerate(graph.node) for name in node.output}
        assert all(places.get(name, -1) < place for place, node in enumerate(graph.node) for name in node.input)


def test_outputs_that_are_no_numbers_are_left_out_and_named(tmp_path: Path):
    body = "g (string[2] s, float[2] x) => (string[2] label, float[2] y) { label = Identity(s) y = Neg(x) }"
    source = read_source(saved(tmp_path, PREFIX + body))
    assert list(source.outputs) == ["y"]
    assert "outputs that are no tensors of numbers are not compared: label" in source.notes
    alone = "g (string[2] s) => (string[2] label) { label = Identity(s) }"
    assert "gives no tensor of numbers" in refused(saved(tmp_path, PREFIX + alone))


IN_A_BRANCH = """(float[b, 3] x, bool c) => (float[b, 3] y) {
    y = If (c) <then_branch = t () => (float[b, 3] p) { p = Softmax <axis = 1.0> (x) }, else_branch = e () => (float[b, 3] q) { q = Relu (x) }>
}"""


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("(float[b, 3] x) => (float[b, 3] y) { y = Softmax <axis = 1.0> (x) }", "-> y (Softmax)"),
        ("(float[b, 3] x) => (float[b, 3] y) { y = Softmax <axis = [1]> (x) }", "-> y (Softmax)"),
        ("(float[b, 3] x) => (float[b, 3] y) { y = LeakyRelu <alpha = 1> (x) }", "-> y (LeakyRelu)"),
        (IN_A_BRANCH, "-> p (Softmax)"),
    ],
)
def test_an_attribute_of_a_type_that_its_operator_does_not_take_is_refused(tmp_path, body, place):
    words = graph_words(tmp_path, f"g {body}")
    assert f"node {place} has the attribute" in words
    assert "and its operator takes " in words


def test_attributes_that_the_operator_does_not_have_and_those_of_functions_are_no_misfit(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[b, 3] x) => (float[b, 3] y) { h = Relu <axis = 1.0> (x)  y = local.Softmax <axis = 1> (h) }
        <domain: "local", opset_import: ["" : 17]> Softmax <axis> (x) => (y) { y = Softmax <axis: int = @axis> (x) }"""
    assert read_source(saved(tmp_path, text)).nodes == 2
