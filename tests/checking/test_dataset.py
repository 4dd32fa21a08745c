"""A data set gives its samples as they lie in the file, or says which sample is wrong and how."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.checking.dataset import DataSet, data_set
from actconform.checking.inputs import write_sample
from actconform.checking.source import read_source
from actconform.errors import UsageError

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
TWO = f"{HEAD}(float[n, 3] image, float scale) => (float[n, 3] y) {{ y = Mul(image, scale) }}"
ALONE = f"{HEAD}(float[n, 3] x) => (float[n, 3] y) {{ y = Relu(x) }}"
FIXED = f"{HEAD}(float[4, 3] x) => (float[4, 3] y) {{ y = Relu(x) }}"
UNLIKE = f"{HEAD}(float[4, 3] x, float[1, 3] s) => (float[4, 3] y) {{ y = Add(x, s) }}"


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(text):
        path = tmp_path / "model.onnx"
        path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
        return read_source(path)

    return read


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def inputs_of(data: DataSet, name="x"):
    return [sample.inputs[name] for sample in data]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 12), batch=st.none() | st.integers(1, 5))
def test_arrays_are_cut_along_their_first_axis(tmp_path_factory, save, length, batch):
    folder = tmp_path_factory.mktemp("data")
    (folder / "model.onnx").write_bytes(onnx.parser.parse_model(ALONE).SerializeToString())
    x, label = numbers(length, 3), np.arange(length)
    save(folder / "data.npz", x=x, label=label)
    data = data_set(str(folder / "data.npz"), read_source(folder / "model.onnx"), batch=batch)
    samples = list(data)
    assert [sample.index for sample in samples] == list(range(data.count))
    assert all(len(sample.inputs["x"]) == (batch or 1) for sample in samples[:-1])
    np.testing.assert_array_equal(np.concatenate([sample.inputs["x"] for sample in samples]), x)
    np.testing.assert_array_equal(np.concatenate([sample.labels["label"] for sample in samples]), label)
    assert [len(sample.inputs["x"]) for sample in data] == [len(sample.inputs["x"]) for sample in samples]  # once more


def test_an_axis_more_than_the_model_has_counts_samples(source):
    np.savez("data.npz", image=numbers(5, 2, 3), scale=numbers(5), label=np.array(list("abcde")))
    samples = list(data_set("data.npz", source(TWO)))
    assert [(sample.inputs["image"].shape, sample.inputs["scale"].shape) for sample in samples] == [((2, 3), ())] * 5
    assert [str(sample.labels["label"]) for sample in samples] == list("abcde")


def test_an_axis_more_of_one_input_alone_is_taken_off_that_input(source):
    np.savez("data.npz", image=numbers(2, 3), scale=numbers(2), label=numbers(2))
    first = next(iter(data_set("data.npz", source(TWO))))
    assert (first.inputs["image"].shape, first.inputs["scale"].shape, first.labels["label"].shape) == ((1, 3), (), (1,))
    with pytest.raises(UsageError, match="--batch 2: input scale has no axis for a batch"):
        data_set("data.npz", source(TWO), batch=2)


def test_a_batch_that_the_model_fixes_is_kept_and_the_rest_named(source):
    np.save("data.npy", numbers(10, 3))
    data = data_set("data.npy", source(FIXED))
    assert [x.shape for x in inputs_of(data)] == [(4, 3), (4, 3)]
    assert data.notes == ("the last 2 of 10 rows do not fill a batch of 4 and are left out",)
    with pytest.raises(UsageError, match="--batch 2: the model takes a batch of 4"):
        data_set("data.npy", source(FIXED), batch=2)


def test_most_samples_are_taken_as_many_as_are_asked_for(source):
    np.save("data.npy", numbers(10, 3))
    data = data_set("data.npy", source(ALONE), most=3)
    assert (data.count, len(inputs_of(data))) == (3, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_file_larger_than_the_memory_it_takes_is_read(source, save):
    save("data.npz", x=np.zeros((200_000, 30, 3), np.float32))
    data = data_set("data.npz", source(ALONE), most=100)
    tracemalloc.start()
    try:
        for _ in data:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20  # of 72 MB


def test_a_folder_has_a_sample_in_each_folder_and_saved_outputs_are_labels(source):
    model = source(ALONE)
    from pathlib import Path

    for k in range(12):
        write_sample(Path("data", f"test_data_set_{k}"), {"x": numbers(1, 3) + k}, model, {"y": numbers(1, 3)})
    data = data_set("data", model)
    assert data.count == 12
    assert [float(sample.inputs["x"][0, 0]) for sample in data] == list(range(12))
    assert all(list(sample.labels) == ["y"] for sample in data)


YIELDS = {
    "dict": "yield {'x': X, 'label': 7}",
    "array": "yield X",
    "pair": "yield X, 7",
    "dict-and-label": "yield {'x': X}, 7",
    "tuple-and-label": "yield (X,), 7",
    "list-of-arrays": "yield [X, np.array(7)]",
    "labels-by-name": "yield {'x': X}, {'label': 7}",
}


@pytest.mark.parametrize("body", YIELDS.values(), ids=YIELDS)
def test_a_function_yields_what_data_loaders_do(source, tmp_path, monkeypatch, body, request):
    module = f"loader_{request.node.callspec.id.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        f"import numpy as np\nX = np.ones((2, 3), np.float32)\ndef data():\n    {body}\n    {body}\n"
    )
    samples = list(data_set(f"{module}:data", source(ALONE)))
    assert [sample.inputs["x"].shape for sample in samples] == [(2, 3), (2, 3)]
    assert [int(sample.labels["label"]) for sample in samples if sample.labels] == ([7, 7] if "7" in body else [])


def test_two_inputs_and_two_labels_come_in_order(source, tmp_path):
    (tmp_path / "loader_order.py").write_text(
        "import numpy as np\ndata = [(np.ones((2, 3), np.float32), np.float32(2), 'cat', 3)]\n"
    )
    (sample,) = data_set("loader_order:data", source(TWO))
    assert float(sample.inputs["scale"]) == 2.0
    assert (str(sample.labels["label_0"]), int(sample.labels["label_1"])) == ("cat", 3)


FUNCTIONS = {
    "raises": ("def data():\n    yield X\n    rows = []\n    yield rows[3]", "sample 1: raised IndexError", "rows[3]"),
    "raises-at-once": ("def data():\n    return open('gone.csv')", "raised FileNotFoundError", "gone.csv"),
    "exits": ("def data():\n    raise SystemExit(3)\n    yield", "raised SystemExit: 3", "raise SystemExit(3)"),
    "needs-arguments": (
        "def data(path):\n    yield X",
        "missing 1 required positional argument: 'path'",
        "without arguments",
    ),
    "no-iterable": ("def data():\n    return 3", "not iterable", "yields samples"),
    "number": ("data = 3", "is of type int", "expected an .npz"),
    "text": ("def data():\n    yield 'x'", "sample 0: input 'x' is", "float32"),
    "name": ("def data():\n    yield {'xx': X}", "lacks the input x; it holds xx; did you mean xx", ""),
    "dtype": ("def data():\n    yield X\n    yield X.astype(float)", "sample 1: input 'x' is float64", "float32"),
    "shape": ("def data():\n    yield X[0]", "sample 0: input 'x' has 1 dimension", "is the batch missing?"),
    "nothing": ("def data():\n    yield from ()", "holds no samples", ""),
    "object": ("def data():\n    yield {'x': object()}", "sample 0: 'x' is of type object", "no array"),
    "syntax": ("def data(:\n", "importing loader_syntax raised SyntaxError", "loader_syntax.py:3"),
    "import": ("import gone_module", "loader_import:data: importing loader_import", "gone_module"),
    "missing": ("dota = 3", "has no 'data'", "did you mean dota"),
}


@pytest.mark.parametrize(("body", "words", "more"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_wrong_with_a_function_is_told_in_the_lines_of_the_user(source, tmp_path, request, body, words, more):
    module = f"loader_{request.node.callspec.id.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(f"import numpy as np; X = np.ones((2, 3), np.float32)\n\n{body}\n")
    with pytest.raises(UsageError) as refusal:
        list(data_set(f"{module}:data", source(ALONE)))
    message = str(refusal.value)
    assert words in message
    assert more in message
    assert "\n" not in message
    assert "site-packages" not in message


def test_a_module_that_is_not_there_is_named(source):
    with pytest.raises(UsageError, match="there is no module gone_loader in"):
        data_set("gone_loader:data", source(ALONE))
    with pytest.raises(UsageError, match='is no "module:function"'):
        data_set("gone loader:data", source(ALONE))


FILES = {
    "lengths": ({"x": numbers(3, 3), "label": numbers(2)}, ALONE, "not of one length: x has 3, label has 2"),
    "missing": ({"y": numbers(3, 3)}, ALONE, "lacks the input x"),
    "scalar": ({"x": numbers(1)[0]}, ALONE, "is a scalar"),
    "dtype": ({"x": numbers(3, 3).astype(np.float64)}, ALONE, "data.npz, sample 0: input 'x' is float64"),
    "shape": ({"x": numbers(3, 4)}, ALONE, "data.npz, sample 0: dimension 1 of input 'x' is 4"),
    "pickled": ({"x": np.array([{}, {}])}, ALONE, "holds pickled Python objects"),
    "columns": ({"x": np.asfortranarray(numbers(4, 3))}, ALONE, "save numpy.ascontiguousarray"),
    "batches": ({"x": numbers(4, 3), "s": numbers(4, 3)}, UNLIKE, "no common batch (x has 4, s has 1)"),
    "empty": ({"x": numbers(0, 3)}, ALONE, "holds no samples"),
}


@pytest.mark.parametrize(("arrays", "model", "words"), FILES.values(), ids=FILES)
def test_what_is_wrong_with_a_file_is_told(source, arrays, model, words):
    np.savez("data.npz", **arrays)
    with pytest.raises(UsageError) as refusal:
        list(data_set("data.npz", source(model)))
    assert words in str(refusal.value)


def test_a_damaged_file_is_told_with_the_row(source, tmp_path):
    np.savez_compressed("data.npz", x=np.random.default_rng(1).standard_normal((1000, 3)).astype(np.float32))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[5000:5100] = bytes(100)
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.npz: x\.npy: is damaged at row \d+"):
        list(data_set("data.npz", source(ALONE)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.npz", b"PK\x03\x04 and no more", "is a damaged archive"),
        ("data.npy", b"no array", "is no array of NumPy"),
        ("data.csv", b"1,2,3", "is no data set; expected an .npz"),
    ],
    ids=["npz", "npy", "csv"],
)
def test_what_is_no_data_set_is_refused(source, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        data_set(name, source(ALONE))


def test_an_archive_without_arrays_and_a_file_that_is_not_there_are_refused(source):
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UsageError, match="is a zip archive without arrays"):
        data_set("data.npz", source(ALONE))
    with pytest.raises(UsageError, match="there is no such file or folder"):
        data_set("gone.npz", source(ALONE))


def test_a_truncated_array_is_refused_before_it_is_read(source, tmp_path):
    np.save("data.npy", numbers(100, 3))
    content = (tmp_path / "data.npy").read_bytes()
    (tmp_path / "data.npy").write_bytes(content[:-40])
    with pytest.raises(UsageError, match="is truncated"):
        data_set("data.npy", source(ALONE))


def test_batches_of_folders_and_functions_are_their_own(source, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match="leave out --batch"):
        data_set("data", source(ALONE), batch=2)
