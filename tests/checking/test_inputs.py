"""A user's inputs are read as they are, or refused with what was expected against what is there."""

from __future__ import annotations

import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.inputs import read_reference, read_samples, write_sample
from actconform.checking.source import read_source
from actconform.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[b, 3] image, int64[b] ids, float scale) => (float[b, 3] scores, int64[b] best) <float scale = {2.0}> {
    scaled = Mul(image, scale) scores = Relu(scaled) best = Identity(ids) }"""
ALONE = '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 3] x) => (float[b, 3] y) { y = Relu(x) }'


def model_at(folder: Path, text: str):
    path = folder / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return read_source(path)


@pytest.fixture
def source(tmp_path: Path):
    return model_at(tmp_path, MODEL)


@pytest.fixture
def alone(tmp_path: Path):
    return model_at(tmp_path, ALONE)


def sample(**changes):
    arrays = {"image": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array([4, 5])} | changes
    return {name: array for name, array in arrays.items() if array is not None}


def npz(folder: Path, **changes) -> Path:
    np.savez(folder / "inputs.npz", **sample(**changes))
    return folder / "inputs.npz"


def refused(path: Path, source, read=read_samples) -> str:
    with pytest.raises(UsageError) as refusal:
        read(path, source)
    words = str(refusal.value)
    assert str(path) in words
    assert "\n" not in words
    return words


def same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_an_npz_is_one_sample(tmp_path: Path, source):
    found = read_samples(npz(tmp_path), source)
    same(found.samples[0].arrays, sample())
    assert (len(found.samples), found.references, found.notes) == (1, [None], [])


def test_a_compressed_npz_and_optional_inputs_are_taken(tmp_path: Path, source):
    np.savez_compressed(tmp_path / "c.npz", **sample(scale=np.float32(3)))
    same(read_samples(tmp_path / "c.npz", source).samples[0].arrays, sample(scale=np.array(3, np.float32)))


def test_a_folder_of_arrays_is_one_sample_and_a_folder_of_folders_several(tmp_path: Path, source):
    for k in (10, 9):
        folder = tmp_path / "data" / f"sample_{k}"
        folder.mkdir(parents=True)
        for name, array in sample(ids=np.array([k, k])).items():
            np.save(folder / f"{name}.npy", array)
    assert len(read_samples(folder, source).samples) == 1
    found = read_samples(tmp_path / "data", source)
    assert [each.name for each in found.samples] == ["sample_9", "sample_10"]
    same(found.samples[0].arrays, sample(ids=np.array([9, 9])))


def test_a_folder_of_archives_has_a_sample_in_each(tmp_path: Path, source):
    folder = tmp_path / "data"
    folder.mkdir()
    npz(folder).rename(folder / "b.npz")
    npz(folder).rename(folder / "a.npz")
    assert [each.name for each in read_samples(folder, source).samples] == ["a.npz", "b.npz"]


def test_names_that_no_file_can_have_are_recognized_by_what_is_left_of_them(tmp_path: Path):
    model = onnx.parser.parse_model(ALONE)
    model.graph.input[0].name = model.graph.node[0].input[0] = "serving/in:0"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "serving_in_0.npy", np.ones((1, 3), np.float32))
    (found,) = read_samples(tmp_path / "data", read_source(tmp_path / "m.onnx")).samples
    assert list(found.arrays) == ["serving/in:0"]


def test_a_single_array_is_the_only_input(tmp_path: Path, alone):
    np.save(tmp_path / "any.npy", np.ones((2, 3), np.float32))
    same(read_samples(tmp_path / "any.npy", alone).samples[0].arrays, {"x": np.ones((2, 3), np.float32)})


def test_a_single_array_is_refused_where_there_are_more_inputs(tmp_path: Path, source):
    np.save(tmp_path / "any.npy", np.ones((2, 3), np.float32))
    assert "2 inputs (image, ids)" in refused(tmp_path / "any.npy", source)


def test_what_is_written_is_read_again_with_its_outputs(tmp_path: Path, source):
    outputs = {"scores": np.ones((2, 3), np.float32), "best": np.array([4, 5])}
    folder = tmp_path / "data" / "test_data_set_0"
    for _ in range(2):
        write_sample(folder, sample(), source, outputs)
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "input_0.pb",
        "input_1.pb",
        "output_0.pb",
        "output_1.pb",
    ]
    for place in (folder, folder.parent):
        found = read_samples(place, source)
        same(found.samples[0].arrays, sample())
        same(found.references[0], outputs)
    same(read_reference(folder, source), outputs)
    assert [entry.name for entry in folder.parent.iterdir()] == ["test_data_set_0"]


def test_a_sample_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, source):
    write_sample(tmp_path / "set", sample(), source)
    with pytest.raises(NotImplementedError):
        write_sample(tmp_path / "set", sample(ids=np.array([object()])), source)
    same(read_samples(tmp_path / "set", source).samples[0].arrays, sample())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "set"]


def test_test_data_go_by_their_own_names_and_else_by_number(tmp_path: Path, source):
    swapped = {"input_0.pb": ("ids", "ids"), "input_1.pb": ("image", "image")}
    numbered = {"input_0.pb": ("image", "other"), "input_1.pb": ("ids", "")}
    for k, files in enumerate((swapped, numbered)):
        folder = tmp_path / f"set{k}"
        folder.mkdir()
        for file, (name, written) in files.items():
            (folder / file).write_bytes(numpy_helper.from_array(sample()[name], written).SerializeToString())
        same(read_samples(folder, source).samples[0].arrays, sample())
    (folder / "input_7.pb").write_bytes(numpy_helper.from_array(sample()["ids"], "odd").SerializeToString())
    assert "no input 7" in refused(folder, source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None, "Image": np.ones((2, 3), np.float32)}, "no input 'Image'; did you mean image"),
        ({"ids": None}, "lacks the input ids; it holds image"),
        ({"image": np.ones((2, 3))}, "is float64, and the model has float32 [b, 3]: save array.astype(numpy.float32)"),
        ({"image": np.full((2, 3), 0.1)}, "which loses digits here"),
        ({"ids": np.ones(2, np.int32)}, "is int32, and the model has int64 [b]: save array.astype(numpy.int64)"),
        ({"image": np.ones(3, np.float32)}, "has 1 dimension (3), and the model has 2: float32 [b, 3]; is the batch missing?"),
        ({"image": np.ones((2, 3, 1), np.float32)}, "has 3 dimensions"),
        ({"image": np.ones((2, 4), np.float32)}, "dimension 1 of input 'image' is 4 (2 x 4), and the model has 3"),
        ({"ids": np.ones(3, np.int64)}, "b is 2 by input 'image' and 3 by dimension 0 of input 'ids'"),
        ({"image": np.array([["a"]])}, "is <U1"),
        ({"image": np.ones((2, 3), np.complex64)}, "is complex64"),
        ({"image": np.array([None])}, "pickled"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused_with_what_does(tmp_path: Path, source, changes, words):
    assert words in refused(npz(tmp_path, **changes), source)


def test_other_ways_of_storing_the_same_numbers_are_taken(tmp_path: Path, source):
    swapped = npz(tmp_path, image=np.asfortranarray(sample()["image"].astype(">f4")))
    found = read_samples(swapped, source).samples[0].arrays["image"]
    assert found.flags.c_contiguous
    same({"image": found}, {"image": sample()["image"]})


def test_arrays_of_bfloat16_are_taken_as_numpy_saves_them(tmp_path: Path):
    source = model_at(
        tmp_path, ALONE.replace("float[b, 3] x", "bfloat16[b, 3] x").replace("float[b, 3] y", "bfloat16[b, 3] y")
    )
    array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", x=array)
    same(read_samples(tmp_path / "x.npz", source).samples[0].arrays, {"x": array})


def test_nan_and_infinities_are_taken_and_noted(tmp_path: Path, source):
    image = np.array([[1, np.nan, np.inf], [0, 0, 0]], np.float32)
    found = read_samples(npz(tmp_path, image=image), source)
    np.testing.assert_array_equal(found.samples[0].arrays["image"], image)
    assert found.notes == ["inputs.npz: input 'image' holds 1 NaN and 1 infinity among 6 numbers"]


def test_nothing_is_unpickled(tmp_path: Path, source):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "x.npz").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "x.npz", source)
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("image.npy", pickle.dumps(Bomb()))
    refused(tmp_path / "y.npz", source)
    (tmp_path / "z.npy").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "z.npy", model_at(tmp_path, ALONE))
    assert not (tmp_path / "exploded").exists()


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no array of NumPy"),
        (b"\x93NUMPY", "no array of NumPy"),
        (header("(2, 3)") + bytes(23), "truncated: shape (2, 3) of float32 needs 24 bytes, and 23 are there"),
        (header("(1000000000000, 1000000000000)"), "truncated"),
        (header("(-1, -24)") + bytes(96), "no array of NumPy"),
        (header("(2, 'a')"), "no array of NumPy"),
        (header("(2, 3)", "|O") + bytes(100), "pickled"),
        (header("(2, 3)", "<z9") + bytes(100), "no array of NumPy"),
        (header("(2, 3)").replace(b"}", b"]"), "no array of NumPy"),
        (header("(2, 3)").replace(b"}", b" "), "no array of NumPy"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, alone, content, words):
    (tmp_path / "x.npy").write_bytes(content)
    assert words in refused(tmp_path / "x.npy", alone)


def test_a_damaged_archive_is_refused(tmp_path: Path, source):
    whole = npz(tmp_path).read_bytes()
    path = tmp_path / "cut.npz"
    for end in (0, 1, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        refused(path, source)
    path.write_bytes(whole[:10] + whole[13:])
    refused(path, source)
    damaged = bytearray(whole)
    damaged[len(whole) // 4] ^= 255
    path.write_bytes(damaged)
    refused(path, source)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "without arrays" in refused(path, source)


def test_damaged_test_data_are_refused(tmp_path: Path, alone):
    folder = tmp_path / "set"
    folder.mkdir()
    path = folder / "input_0.pb"
    tensor = helper.make_tensor("x", TensorProto.FLOAT, [1, 3], [1, 2, 3])
    for content in (b"", b"\xff\xff", tensor.SerializeToString()[:-5], b"\n"):
        path.write_bytes(content)
        refused(folder, alone)
    external = TensorProto(data_type=1, dims=[1, 3], data_location=TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(external.SerializeToString())
    assert "points to another file" in refused(folder, alone)
    path.write_bytes(TensorProto(data_type=1, dims=[2**40], raw_data=bytes(4)).SerializeToString())
    refused(folder, alone)
    path.write_bytes(TensorProto(data_type=99, dims=[1, 3], raw_data=bytes(12)).SerializeToString())
    refused(folder, alone)


def test_what_holds_no_inputs_is_refused(tmp_path: Path, source):
    assert "No such file" in refused(tmp_path / "gone.npz", source)
    (tmp_path / "empty").mkdir()
    assert "holds no inputs; expected an .npz" in refused(tmp_path / "empty", source)
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(tmp_path / "pipe", source)
    (tmp_path / "text.csv").write_text("1,2")
    assert "no file of inputs" in refused(tmp_path / "text.csv", source)


def test_a_reference_is_some_of_the_outputs(tmp_path: Path, source):
    np.savez(tmp_path / "r.npz", scores=np.ones((2, 3), np.float32))
    same(read_reference(tmp_path / "r.npz", source), {"scores": np.ones((2, 3), np.float32)})
    np.savez(tmp_path / "r.npz", score=np.ones((2, 3), np.float32))
    assert "no output 'score'; did you mean scores" in refused(tmp_path / "r.npz", source, read_reference)
    np.savez(tmp_path / "r.npz", best=np.ones(2))
    assert "output 'best' is float64" in refused(tmp_path / "r.npz", source, read_reference)
    np.savez(tmp_path / "r.npz", scores=np.ones((2, 4), np.float32))
    assert "dimension 1 of output 'scores' is 4" in refused(tmp_path / "r.npz", source, read_reference)


def test_symbols_are_sized_for_each_sample_apart(tmp_path: Path, source):
    for k, b in enumerate((1, 4)):
        arrays = {"image": np.ones((b, 3), np.float32), "ids": np.ones(b, np.int64)}
        write_sample(tmp_path / "sets" / f"test_data_set_{k}", arrays, source)
    assert [each.arrays["ids"].size for each in read_samples(tmp_path / "sets", source).samples] == [1, 4]


def test_inputs_that_need_more_memory_are_refused_with_the_estimate(tmp_path: Path, alone):
    np.save(tmp_path / "x.npy", np.zeros((2**20, 3), np.float32))
    with pytest.raises(UsageError, match=r"the model is too large for memory: .* GiB with these inputs.*--max-memory"):
        read_samples(tmp_path / "x.npy", alone, max_memory=2**28)
    assert read_samples(tmp_path / "x.npy", alone, max_memory=2**34).samples
