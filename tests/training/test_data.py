"""The rows of a training: every one of them read once an epoch, validation apart, and what does not fit named."""

from __future__ import annotations

import numpy as np
import pytest
from own_models import rows, save_model, save_two_layers

from actconform.checking.source import read_source
from actconform.errors import UsageError
from actconform.training.data import read_train_data


@pytest.fixture
def read(tmp_path):
    """Write arrays and read them as the data of a model, whose batch may be fixed."""

    def made(arrays, *, batch="n", **options):
        save_two_layers(tmp_path / "model.onnx", batch=batch)
        np.savez(tmp_path / "data.npz", **arrays)
        asked = {"target": None, "batch": None, "validation": None, **options}
        return read_train_data(tmp_path / "data.npz", read_source(tmp_path / "model.onnx"), "logits", **asked)

    return made


def test_an_epoch_reads_every_row_once_in_an_order_of_its_own(read):
    data = read(rows(240), validation=0.25)
    assert (data.training_rows, data.held_out, data.batch, data.steps) == (180, 60, 32, 5)
    first, second = data.order(0, 0), data.order(0, 1)
    assert first.shape == (5, 32)
    assert len(np.unique(first)) == 160
    assert first.max() < 180
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, data.order(0, 0))
    assert not np.array_equal(first, data.order(1, 0))
    seen = np.concatenate([data.order(0, epoch).ravel() for epoch in range(40)])
    assert set(seen) == set(range(180))  # what does not fill a batch waits for another epoch


@pytest.mark.parametrize(("batch", "sizes"), [("n", [32, 28]), ("25", [25, 25])])
def test_validation_rows_are_the_last_ones_and_each_read_once(read, batch, sizes):
    data = read(rows(240), batch=batch, validation=0.25)
    slices = data.validation_batches()
    assert [rows.stop - rows.start for rows in slices] == sizes
    assert slices[0].start == 180
    assert [after.start for after in slices[1:]] == [before.stop for before in slices[:-1]]
    np.testing.assert_array_equal(data.batch_of(slices[0])["x"], rows(240)["x"][slices[0]])
    np.testing.assert_array_equal(data.batch_of(slices[0])["target"], rows(240)["label"][slices[0]])


def test_the_digest_is_of_the_numbers_and_not_of_the_file(read):
    whole = read(rows())
    assert read(dict(reversed(rows().items()))).digest == whole.digest
    assert read({**rows(), "x": rows()["x"].astype(">f4")}).digest == whole.digest
    changed = rows()
    changed["x"][3, 2] += 1
    assert read(changed).digest != whole.digest


def with_value(value):
    arrays = rows()
    arrays["x"][5, 2] = value
    return arrays


WRONG = {
    "nan": (with_value(np.nan), ["'x' holds 1 NaN", "[5, 2]"]),
    "infinite": (with_value(np.inf), ["'x' holds 1 NaN", "[5, 2]"]),
    "lacks-input": ({"label": rows()["label"]}, ["lacks the input x"]),
    "lacks-target": ({"x": rows()["x"]}, ["--target"]),
    "two-targets": ({**rows(), "other": rows()["label"]}, ["label, other", "--target"]),
    "unequal-rows": ({**rows(), "x": rows()["x"][1:]}, ["x has 239", "label has 240"]),
    "one-number": ({**rows(), "label": np.float32(1)}, ["'label' is one number"]),
    "classes-by-number": ({**rows(), "label": rows()["label"].argmax(-1)}, ["[240]", "numpy.eye(3"]),
    "shape-of-target": ({**rows(), "label": rows()["label"][:, :2]}, ["[240, 2]", "[n, 3]"]),
    "shape-of-input": ({**rows(), "x": rows()["x"][:, :2]}, ["'x'", "is 2", "has 4"]),
    "dtype-of-input": ({**rows(), "x": rows()["x"].astype(np.float64)}, ["float64", "astype(numpy.float32)"]),
    "dtype-of-target": (
        {**rows(), "label": rows()["label"].astype(np.int64)},
        ["int64", "label.astype(numpy.float32)"],
    ),
    "objects": ({**rows(), "x": np.array([{}] * 240)}, ["pickled"]),
}


@pytest.mark.parametrize(("arrays", "expected"), WRONG.values(), ids=WRONG.keys())
def test_rows_that_do_not_fit_are_refused(read, arrays, expected):
    with pytest.raises(UsageError) as raised:
        read(arrays)
    for text in ("data.npz", *expected):
        assert text in str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "label", "extra": True}, ["holds z", "leave it out"]),
        ({"batch": "16", "asked": 32}, ["--batch 32", "a batch of 16"]),
        ({"batch": "16", "validation": 0.05}, ["12 of 240", "a batch of 16"]),
        ({"validation": 0.001}, ["0 of 240", "one row"]),
        ({"validation": 0.9}, ["--batch 32", "24 rows without validation's 216"]),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, expected):
    save_two_layers(tmp_path / "model.onnx", batch=options.get("batch", "n"))
    more = {"z": rows()["label"]} if "extra" in options else {}
    np.savez(tmp_path / "data.npz", **rows(), **more)
    with pytest.raises(UsageError) as raised:
        read_train_data(
            tmp_path / "data.npz",
            read_source(tmp_path / "model.onnx"),
            "logits",
            target=options.get("target"),
            batch=options.get("asked"),
            validation=options.get("validation"),
        )
    for text in expected:
        assert text in str(raised.value)


def test_a_folder_of_arrays_is_read_too_and_integers_stay(tmp_path):
    text = "g (int64[n, 2] tokens) => (float[n, 2, 5] y) { y = Gather (table, tokens) }"
    save_model(tmp_path / "model.onnx", text, {"table": np.ones((7, 5), np.float32)})
    (tmp_path / "data").mkdir()
    tokens = np.arange(80).reshape(40, 2) % 7
    np.save(tmp_path / "data" / "tokens.npy", tokens)
    np.save(tmp_path / "data" / "y.npy", np.zeros((40, 2, 5), np.float32))
    data = read_train_data(
        tmp_path / "data", read_source(tmp_path / "model.onnx"), "y", target="y", batch=None, validation=None
    )
    assert data.target == "y"
    assert data.arrays["tokens"].dtype == np.int64
    np.testing.assert_array_equal(data.batch_of(slice(3, 5))["tokens"], tokens[3:5])
