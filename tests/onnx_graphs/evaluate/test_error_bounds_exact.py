"""Error bounds of what moves, compares, chooses and counts; and that no operator goes without a bound unnoticed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from bounded_nodes import F32, bounds, run, worst
from onnx import TensorProto, helper

from actconform.onnx.evaluate.error_bounds import has_error_bound

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ERRORS = np.arange(24.0).reshape(2, 3, 4) / 100

WITHOUT = {
    "random numbers": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "graphs inside, which are taken apart": "If Loop Scan SequenceMap",
    "sequences and optional values": """
        ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength SplitToSequence""",
    "strings": "RegexFullMatch StringConcat StringNormalizer StringSplit",
    "images": "ImageDecoder",
}


def test_every_operator_of_the_newest_opset_has_a_bound_or_a_reason():
    operators = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    reasons = {operator for operators in WITHOUT.values() for operator in operators.split()}
    without = {operator for operator in operators if not has_error_bound(operator)}
    assert without == reasons & operators


MOVES = [
    ("Reshape", [X, np.array([4, -1])], {}),
    ("Transpose", [X], {"perm": [2, 0, 1]}),
    ("Concat", [X, 2 * X], {"axis": 1}),
    ("Slice", [X, np.array([1]), np.array([3]), np.array([2])], {}),
    ("Gather", [X, np.array([2, 0])], {"axis": 1}),
    ("GatherElements", [X, np.zeros((2, 3, 2), int)], {"axis": 2}),
    ("GatherND", [X, np.array([[1, 2], [0, 0]])], {}),
    ("Expand", [X[:, :1], np.array([2, 5, 4])], {}),
    ("Squeeze", [X[:1], np.array([0])], {}),
    ("Unsqueeze", [X, np.array([0, 4])], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Identity", [X], {}),
    ("DepthToSpace", [X.reshape(1, 4, 2, 3)], {"blocksize": 2}),
    ("Compress", [X, np.array([True, False, True])], {"axis": 2}),
    ("ReverseSequence", [X[0], np.array([1, 2, 3, 1])], {"time_axis": 0, "batch_axis": 1}),
    ("Trilu", [X], {"upper": 0}),
    ("Dropout", [X], {}),
    ("ScatterND", [X, np.array([[1]]), X[:1] + 100], {}),
    ("ScatterElements", [X[0], np.array([[1, 0, 2, 0]]), X[1, :1] + 100], {}),
    ("Where", [X > 5, X, 2 * X], {}),
]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), [pytest.param(*case, id=case[0]) for case in MOVES])
def test_moved_elements_are_exact_and_keep_their_errors(op_type, inputs, attributes):
    (bound,) = bounds(op_type, *inputs, **attributes)
    assert bound.error is None
    (got,) = run(op_type, *inputs, **attributes)
    assert worst(got, bound) == 0
    # the error of every element is a hundredth of it, and goes where it goes
    errors = [x / 100 if x.dtype == np.float32 else None for x in inputs]
    (bound,) = bounds(op_type, *inputs, errors=errors, **attributes)
    np.testing.assert_allclose(bound.error, bound.value / 100, rtol=1e-6)


def test_places_in_doubt_leave_nothing_certain():
    (bound,) = bounds("Slice", X, np.array([0]), np.array([2]), np.array([2]), errors=(None, np.array([1.0])))
    assert np.isinf(bound.error).all()


@pytest.mark.parametrize(
    ("op_type", "places", "attributes"),
    [
        ("Gather", np.array([2, 0]), {"axis": 1}),
        ("Gather", np.array([[2, 0], [1, 1], [0, 2]]), {"axis": -1}),
        ("Gather", np.array(1), {"axis": 0}),
        ("GatherElements", np.array([[[1, 0, 2], [0, 1, 1]]]), {"axis": 1}),
        ("GatherND", np.array([[1, 2], [0, 0]]), {}),
        ("GatherND", np.array([[[1, 2], [0, 0]], [[2, 0], [2, 2]], [[0, 1], [1, 0]]]), {"batch_dims": 1}),
    ],
)
def test_a_place_in_doubt_makes_what_is_gathered_there_doubtful_and_nothing_else(op_type, places, attributes):
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    for flat in range(places.size):
        doubt, moved = np.zeros(places.shape), places.copy()
        doubt.flat[flat], moved.flat[flat] = np.inf, (places.flat[flat] + 1) % 3
        (bound,) = bounds(op_type, cube, places, errors=(cube / 100, doubt), **attributes)
        (certain,) = bounds(op_type, cube, places, errors=(cube / 100, None), **attributes)
        (before,), (after,) = (run(op_type, cube, each, **attributes) for each in (places, moved))
        np.testing.assert_array_equal(bound.error, np.where(before != after, np.inf, certain.error))


def test_a_condition_in_doubt_lets_either_input_through():
    condition, doubt = np.array([True, False, True]), np.array([np.inf, 0.0, 0.0])
    a, b = np.float32([1, 2, 3]), np.float32([5, 7, 9])
    (bound,) = bounds("Where", condition, a, b, errors=(doubt, np.full(3, 0.5)))
    np.testing.assert_array_equal(bound.error, [4.5, 0, 0.5])


def test_comparisons_are_in_doubt_where_errors_let_them_fall_either_way():
    a, b = np.float32([1.0, 2.0, 1.05, 1.0]), np.float32([1.0, 1.0, 1.0, 1.0])
    for op_type in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        assert bounds(op_type, a, b, kinds=(BOOL,))[0].error is None
        (bound,) = bounds(op_type, a, b, kinds=(BOOL,), errors=(np.array([0.1, 0.1, 0.1, 0.0]), np.zeros(4)))
        np.testing.assert_array_equal(bound.error, [np.inf, 0, np.inf, 0])
    (bound,) = bounds("Not", a > 1, kinds=(BOOL,), errors=(np.array([np.inf, 0, 0, 0]),))
    np.testing.assert_array_equal(bound.error, [np.inf, 0, 0, 0])
    (bound,) = bounds("IsNaN", a, kinds=(BOOL,), errors=(np.array([np.inf, 0.5, 0, 0]),))
    np.testing.assert_array_equal(bound.error, [np.inf, 0, 0, 0])


def test_an_infinity_is_certain():
    x = np.float32([-np.inf, 1.0])
    (bound,) = bounds("Equal", x, np.float32([-np.inf]), kinds=(BOOL,), errors=(np.array([np.inf, 0.1]),))
    np.testing.assert_array_equal(bound.error, [0, 0])


def test_the_place_of_an_extreme_is_in_doubt_where_a_second_one_may_be_it():
    x = np.float32([[1.0, 1.01, 0.0], [1.0, 3.0, 0.0], [2.0, 2.0, 1.0]])
    for op_type, sign in (("ArgMax", 1), ("ArgMin", -1)):
        (exact,) = bounds(op_type, sign * x, kinds=(INT64,), axis=1, keepdims=0)
        assert exact.error is None
        np.testing.assert_array_equal(exact.value, [1, 1, 0])
        error = np.array([[0.01], [0.01], [0.0]])
        (bound,) = bounds(op_type, sign * x, kinds=(INT64,), errors=(error,), axis=1, keepdims=0)
        np.testing.assert_array_equal(bound.error, [np.inf, 0, 0])
    (bound,) = bounds("ArgMax", np.float32([[np.nan, 1.0]]), kinds=(INT64,), axis=1)
    assert np.isinf(bound.error).all()
    (bound,) = bounds("Hardmax", x, errors=(np.array([[0.01], [0.01], [0.0]]),))
    np.testing.assert_array_equal(bound.error[:, 0], [1, 0, 0])


def test_the_largest_move_by_the_largest_error_and_their_places_where_they_may_pass_each_other():
    x, k = np.float32([5.0, 1.0, 4.99, 3.0, 0.99]), np.array([3])
    exact = bounds("TopK", x, k, kinds=(F32, INT64))
    assert exact[0].error is None
    assert exact[1].error is None
    values, places = bounds("TopK", x, k, kinds=(F32, INT64), errors=(np.full(5, 0.01),))
    np.testing.assert_array_equal(values.error, 0.01)
    np.testing.assert_array_equal(places.error, [np.inf, np.inf, 0])
    _, places = bounds("TopK", x, np.array([2]), kinds=(F32, INT64), errors=(np.full(5, 0.01),), largest=0)
    np.testing.assert_array_equal(places.error, [np.inf, np.inf])
    _, places = bounds("TopK", x, np.array([1]), kinds=(F32, INT64), errors=(np.full(5, 0.01),), largest=0)
    np.testing.assert_array_equal(places.error, [np.inf])  # the second smallest may be the smallest
    values, places = bounds("TopK", x, k, kinds=(F32, INT64), sorted=0)
    assert worst(np.float32([3.0, 5.0, 4.99]), values) <= 1
    assert np.isinf(places.error).all()


def test_counting_numbers_in_doubt_is_in_doubt():
    x = np.float32([0.0, 1.0])
    assert bounds("NonZero", x, kinds=(INT64,))[0].error is None
    assert not np.any(bounds("NonZero", x, kinds=(INT64,), errors=(np.array([0.0, 0.5]),))[0].error)
    assert np.isinf(bounds("NonZero", x, kinds=(INT64,), errors=(np.array([0.1, 0.5]),))[0].error).all()
    assert bounds("Shape", x, kinds=(INT64,), errors=(np.array([0.1, 0.5]),))[0].error is None


def test_a_range_is_exact_where_the_format_holds_its_numbers():
    assert bounds("Range", *np.float32([0, 100, 0.5]))[0].error is None
    (bound,) = bounds("Range", *np.float32([0, 10, 0.1]))
    step = np.float32(0.1)
    added = np.cumsum(np.full(100, step), dtype=np.float32) - step
    assert worst(added[: bound.value.size].astype(np.float32), bound) <= 1
    assert worst(np.arange(bound.value.size, dtype=np.float32) * step, bound) <= 1


def test_a_determinant_stays_within():
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 6, 12):
        x = rng.standard_normal((20, n, n)).astype(np.float32)
        (bound,) = bounds("Det", x)
        assert worst(np.linalg.det(x), bound) <= 1
        assert worst(np.linalg.det(x.astype(np.float64)).astype(np.float32), bound) <= 1
        if n <= 6:
            assert worst(np.linalg.det((x * 1.0001).astype(np.float64)), bound) > 1


def test_casts_to_small_types_give_a_certain_number():
    x = np.array([0.1, 1.0, 300.0])
    (bound,) = bounds("Cast", x, kinds=(TensorProto.FLOAT8E5M2,), to=TensorProto.FLOAT8E5M2)
    assert bound.error is None
    np.testing.assert_allclose(bound.value.astype(float), [0.09375, 1.0, 320.0])
    (bound,) = bounds("Cast", x, kinds=(TensorProto.FLOAT8E5M2,), to=TensorProto.FLOAT8E5M2, errors=(np.full(3, 0.01),))
    np.testing.assert_allclose(bound.error, [0.015625, 0, 0])
    (bound,) = bounds("Cast", np.array([7.9, 9.0]), kinds=(TensorProto.INT4,), to=TensorProto.INT4)
    np.testing.assert_array_equal(bound.error, [0, np.inf])
    assert int(bound.value[0]) == 7


def test_a_constant_of_a_shape_and_an_identity_are_certain():
    node = helper.make_tensor("value", F32, [1], [2.5])
    (bound,) = bounds("ConstantOfShape", np.array([2, 3]), value=node)
    assert bound.error is None
    np.testing.assert_array_equal(bound.value, np.full((2, 3), 2.5))


def test_ngrams_are_counted_exactly_and_weighted_by_a_rounding():
    attributes = {
        "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0, "ngram_counts": [0, 3], "ngram_indexes": [0, 1, 2, 3],
        "pool_int64s": [2, 3, 5, 2, 3], "weights": [0.1, 0.2, 0.3, 0.7],
    }  # fmt: skip
    x = np.array([2, 3, 5, 2, 3, 2])
    for mode in ("TF", "TFIDF"):
        (bound,) = bounds("TfIdfVectorizer", x, mode=mode, **attributes)
        (got,) = run("TfIdfVectorizer", x, mode=mode, **attributes)
        assert worst(got, bound) <= 1
        assert np.any(bound.error) == (mode == "TFIDF")
    assert np.isinf(bounds("TfIdfVectorizer", x, mode="TF", errors=(np.ones(6),), **attributes)[0].error).all()
