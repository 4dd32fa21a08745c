"""Other lengths and shapes: every tail, long arrays, each with the truth that an independent function gives there."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.special

from actconform.catalog.kernels import ROWS, UNARY
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import TestVectors, generate
from actconform.testdata.sizes import BLOCK, TAILS, VECTOR, with_sizes

BY_NAME = {kernel.name: kernel for kernel in (*UNARY, *ROWS)}


@functools.cache
def exam_of(name: str, aspect: str = "value", dtype: str = "f32") -> TestVectors:
    golden = load(golden_dir(), read_manifest(golden_dir()), name)
    return with_sizes(BY_NAME[name], aspect, dtype, generate(BY_NAME[name], aspect, dtype, golden))


def whole(test_vectors, *, compiles=False, graph=False):
    """Return the test vectors that are asked beside those of every route."""
    asked = test_vectors.asked(few=compiles, graph=graph)
    return asked.vectors[len(test_vectors.vectors) :]


@pytest.mark.parametrize(("aspect", "dtype"), [("value", "f32"), ("gradient", "bf16"), ("value", "f16")])
def test_arrays_end_with_every_tail_after_whole_vectors(aspect, dtype):
    lengths = {vector.asked()[0]["x"].size for vector in exam_of("tanh", aspect, dtype).sizes if vector.rank == 1}
    assert {n % VECTOR for n in lengths if VECTOR < n < 100} == set(TAILS)
    assert max(lengths) > 1 << 16
    assert {4096, 4097, 1 << 16} < lengths


def test_a_million_numbers_are_asked_once():
    assert max(vector.asked()[0]["x"].size for vector in exam_of("relu").sizes) > 1 << 20


def test_every_input_stands_at_every_place_of_a_vector():
    page = next(vector for vector in exam_of("sigmoid").sizes if vector.rows == 4097)
    x = page.asked()[0]["x"]
    places = {(bits, place % VECTOR) for place, bits in enumerate(x.view(np.uint32).tolist())}
    assert places >= {(bits, place) for bits in x[:BLOCK].view(np.uint32).tolist() for place in range(VECTOR)}


@pytest.mark.parametrize("name", ["tanh", "relu"])
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_the_truth_of_a_unary_kernel_is_that_of_its_inputs_in_any_shape(name, aspect):
    def value(x):
        return np.tanh(x) if name == "tanh" else np.maximum(x, 0)

    def slope(x):
        return 1 / np.cosh(x) ** 2 if name == "tanh" else np.where(np.isnan(x), x, np.where(x > 0, 1.0, 0.0))

    for vector in exam_of(name, aspect).sizes:
        inputs, cotangents = vector.asked()
        with np.errstate(all="ignore"):  # signalling NaNs among others
            x = inputs["x"].astype(np.float64)
            wanted = value(x) if cotangents is None else slope(x) * cotangents["y"]
        (truth,) = vector.truth.values()
        assert vector.shape_of(truth) == x.shape
        repeated = np.resize(truth, x.shape) if vector.rows else truth
        near = np.isclose(repeated, wanted, rtol=1e-6, atol=1e-30, equal_nan=True)
        assert (near | (x == 0)).all()  # at a kink any slope between is right


@pytest.mark.parametrize("name", ["softmax", "log-softmax-axis1", "max", "argmax", "prelu"])
def test_the_truth_of_rows_is_that_along_their_axis_in_any_shape(name):
    functions = {
        "softmax": lambda x, _: scipy.special.softmax(x, axis=-1),
        "log-softmax-axis1": lambda x, _: scipy.special.log_softmax(x, axis=1),
        "max": lambda x, _: x.max(axis=-1),
        "argmax": lambda x, _: x.argmax(axis=-1),
        "prelu": lambda x, slope: np.maximum(x, 0) + slope * np.minimum(x, 0),
    }
    vectors = exam_of(name).sizes
    ranks = set()
    for vector in vectors:
        inputs, _ = vector.asked()
        ranks.add(inputs["x"].ndim)
        wanted = functions[name](inputs["x"].astype(np.float64), inputs.get("slope", np.zeros(1)).astype(np.float64))
        truth = vector.truth["y"]
        assert vector.shape_of(truth) == wanted.shape
        np.testing.assert_allclose(
            np.resize(truth, wanted.shape) if vector.rows else truth, wanted, rtol=1e-12, atol=1e-12
        )
    assert ranks == ({2, 3, 4} if "axis1" in name else {1, 2, 3, 4})


def test_the_maximum_of_a_long_row_stands_beyond_16_bits():
    (row,) = [vector for vector in exam_of("argmax").sizes if vector.inputs["x"].shape[-1] > 1 << 16]
    assert row.truth["y"].item() >= 1 << 16


def test_slopes_of_prelu_meet_axes_that_a_runtime_could_take_for_theirs():
    shapes = {vector.inputs["x"].shape for vector in exam_of("prelu").sizes}
    assert {3, 4} <= {len(shape) for shape in shapes if shape[1:2] == shape[-1:]}


def test_a_gradient_over_all_rows_is_never_repeated():
    assert not any(vector.rows for vector in exam_of("prelu", "gradient").sizes)
    assert any(vector.rows for vector in exam_of("softmax", "gradient").sizes)


@pytest.mark.parametrize("name", ["gelu-erf", "softmax"])
def test_a_backend_that_compiles_each_shape_is_asked_few(name):
    few = whole(exam_of(name), compiles=True)
    assert 3 <= len(few) <= 8
    assert len(few) < len(whole(exam_of(name))) / 2
    assert {"sizes", "shapes", "empty"} == {vector.regime for vector in few}


@pytest.mark.parametrize("name", ["gelu-erf", "softmax", "softmax-axis1"])
def test_a_graph_is_asked_no_other_rank_than_it_declares(name):
    test_vectors = exam_of(name)
    declared = len(BY_NAME[name].dims("x"))
    assert {vector.rank for vector in whole(test_vectors, graph=True)} == {declared}
    others = test_vectors.of_other_ranks(compiles_per_shape=False)
    assert declared not in others
    assert all(vector.may_refuse for vectors in others.values() for vector in vectors)


@pytest.mark.parametrize(
    ("name", "aspect"), [("relu", "value"), ("relu", "gradient"), ("max", "value"), ("prelu", "gradient")]
)
def test_empty_arrays_have_empty_truths_and_may_be_refused(name, aspect):
    empty = [vector for vector in exam_of(name, aspect).sizes if not vector.inputs["x"].size]
    assert empty
    for vector in empty:
        assert vector.may_refuse
        for tensor, truth in vector.truth.items():
            assert truth.size == 0 if tensor != "d_slope" else (truth == 0).all()
