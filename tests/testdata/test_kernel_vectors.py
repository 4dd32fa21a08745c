"""The questions of a case: stored truth in float32, every pattern in 16 bits, rounded tensors for rows, the largest first."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle import truth
from actconform.testdata.golden.store import Golden, golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import STORAGE, generate
from actconform.testdata.regimes import NAN_PATTERNS, SPECIALS
from actconform.types import ASPECTS
from actconform.types.dtypes import DTYPES

BY_NAME = {kernel.name: kernel for kernel in UNARY + ROWS}
MANIFEST = read_manifest(golden_dir())
SAMPLE = ("sigmoid", "relu", "gelu-erf", "softmax", "prelu", "argmax", "max", "log-softmax-axis1", "glu")


def golden_of(name: str):
    return load(golden_dir(), MANIFEST, name)


def exam_of(name: str, aspect: str, dtype: str):
    return generate(BY_NAME[name], aspect, dtype, golden_of(name))


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def nan_equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b))


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_question_is_first_and_all_are_in_the_dtype(name: str, aspect: str, dtype: str):
    kernel = BY_NAME[name]
    if aspect == "gradient" and not kernel.differentiable:
        return
    vectors = exam_of(name, aspect, dtype).vectors
    sizes = [vector.inputs["x"].size for vector in vectors]
    assert sizes[0] == max(sizes)
    for vector in vectors:
        assert vector.inputs.keys() == set(kernel.inputs)
        asked = [*vector.inputs.values(), *(vector.cotangents or {}).values()]
        assert {array.dtype for array in asked} == {STORAGE[dtype]}
        outputs = {f"d_{name}" for name in kernel.inputs} if aspect == "gradient" else {"y"}
        assert vector.truth.keys() == vector.input_at.keys() == vector.dtypes.keys() == outputs
        for output, numbers in vector.truth.items():
            assert numbers.dtype == np.float64
            assert vector.input_at[output].shape == numbers.shape
            answer = np.int64 if kernel.output_dtype == "int64" else STORAGE[dtype]
            assert vector.dtypes[output] == answer
        assert (vector.cotangents is None) == (aspect == "value")


@pytest.mark.parametrize("name", ["sigmoid", "gelu-tanh", "relu"])
@pytest.mark.parametrize(("aspect", "tensor"), [("value", "y"), ("gradient", "d_x")])
def test_in_float32_the_truth_is_the_stored_golden_bit_for_bit(name: str, aspect: str, tensor: str):
    golden = golden_of(name)
    test_vectors = exam_of(name, aspect, "f32")
    for regime, stored in golden.split():
        if regime == "special":
            continue
        (vector,) = (
            q
            for q in test_vectors.vectors
            if q.regime == regime and (not q.cotangents or bits(q.cotangents["y"]) == bits(ones(q)))
        )
        assert bits(vector.inputs["x"]) == bits(stored["x"])
        assert bits(vector.truth[tensor]) == bits(stored[tensor])
        assert bits(vector.input_at[tensor]) == bits(stored["x"].astype(np.float64))


def unstored(kernel, vector) -> bool:
    """Tell whether the call is one of special elements in long rows, of large logits there, or of all cotangents: no golden holds its truth."""
    long = vector.inputs["x"].shape[kernel.axis] > {"special": 8, "huge": 40}.get(vector.regime, np.inf)
    return vector.regime == "cotangent" or bool(long)


def asks(vector, tensors) -> bool:
    """Tell whether a call has the inputs, and the cotangent if any, of a stored draw."""
    same = all(bits(array) == bits(tensors[name]) for name, array in vector.inputs.items())
    return same and (not vector.cotangents or bits(vector.cotangents["y"]) == bits(tensors["g"]))


def usual_nan(vector) -> bool:
    """Tell whether the call has no NaN but the usual one of float32."""
    x = vector.inputs["x"]
    return x.dtype != np.float32 or not np.isin(x.view(np.uint32), NAN_PATTERNS).any()


def ones(vector) -> np.ndarray:
    return np.ones_like(vector.inputs["x"])


@pytest.mark.parametrize("name", ["softmax", "prelu", "argmax", "maxout", "log-softmax-axis1"])
def test_rows_in_float32_are_the_stored_draws_bit_for_bit(name: str):
    kernel = BY_NAME[name]
    for aspect in ASPECTS if kernel.differentiable else ASPECTS[:1]:
        stored = list(golden_of(name).split())
        vectors = [vector for vector in exam_of(name, aspect, "f32").vectors if not unstored(kernel, vector)]
        assert len(vectors) == len(stored)
        for regime, tensors in stored:
            vector = next(v for v in vectors if v.regime == regime and asks(v, tensors))
            vectors.remove(vector)
            for given, array in vector.inputs.items():
                assert bits(array) == bits(tensors[given])
                assert array.shape == tensors[given].shape
            if vector.cotangents:
                assert bits(vector.cotangents["y"]) == bits(tensors["g"])
            for output, numbers in vector.truth.items():
                assert bits(numbers) == bits(tensors[output].astype(np.float64))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("aspect", ASPECTS)
def test_in_16_bits_all_patterns_come_first_in_order(dtype: str, aspect: str):
    test_vectors = exam_of("tanh", aspect, dtype)
    first = test_vectors.vectors[0]
    assert first.regime == "exhaustive"
    patterns = first.inputs["x"].view(np.uint16)
    assert np.array_equal(patterns, np.arange(1 << 16))
    (numbers,) = first.truth.values()
    with np.errstate(over="ignore", invalid="ignore"):
        x = patterns.view(STORAGE[dtype]).astype(np.float64)
        wanted = np.tanh(x) if aspect == "value" else np.cosh(x) ** -2.0
    np.testing.assert_allclose(numbers, wanted, rtol=1e-12, atol=1e-300)
    further = {"cotangent"} if aspect == "gradient" else set()
    assert {vector.regime for vector in test_vectors.vectors} == {"exhaustive", "special", *further}


@pytest.mark.parametrize("dtype", DTYPES)
def test_specials_stand_in_arrays_of_each_length_with_the_truth_of_their_own_input(dtype: str):
    vectors = [q for q in exam_of("sigmoid", "value", dtype).vectors if q.regime == "special" and usual_nan(q)]
    assert len(vectors) == 4 * len(SPECIALS)
    assert sorted({q.inputs["x"].size for q in vectors}) == [1, 8, 17, 67]
    for vector in vectors:
        x = vector.inputs["x"].astype(np.float64)
        assert nan_equal(vector.input_at["y"], x)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(vector.truth["y"], 1 / (1 + np.exp(-x)), rtol=1e-9)
    tails = np.array([vector.inputs["x"][-1] for vector in vectors]).astype(np.float64)
    assert np.isnan(tails).sum() == 4
    assert np.isinf(tails).sum() >= 8
    assert np.signbit(tails[tails == 0]).sum() >= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_asked_with_ones_and_with_signed_powers_of_two_and_the_truth_is_multiplied(dtype: str):
    vectors = exam_of("softplus", "gradient", dtype).vectors
    by_regime: dict[str, list] = {}
    for vector in vectors:
        by_regime.setdefault(vector.regime, []).append(vector)
    for regime, pair in by_regime.items():
        if regime == "special":
            assert all(bits(q.cotangents["y"]) == bits(ones(q)) for q in pair)
        if regime in ("special", "cotangent"):
            continue
        plain, powers = pair
        assert bits(plain.cotangents["y"]) == bits(ones(plain))
        g = powers.cotangents["y"].astype(np.float64)
        assert set(np.abs(g)) == {0.5, 1.0, 2.0, 4.0}
        assert {-1.0, 1.0} == set(np.sign(g))
        assert bits(powers.inputs["x"]) == bits(plain.inputs["x"])
        assert nan_equal(powers.truth["d_x"], plain.truth["d_x"] * g)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_row_inputs_are_rounded_once_and_the_truth_is_that_of_the_rounded_ones(dtype: str):
    kernel = BY_NAME["softmax"]
    stored, draws = golden_of("softmax").tensors["x"], golden_of("softmax").draws
    with np.errstate(over="ignore"):
        wanted = stored.astype(STORAGE[dtype])  # from float32, one rounding
    vectors = [q for q in exam_of("softmax", "value", dtype).vectors if not unstored(kernel, q)]
    given = [vector.inputs["x"].ravel() for vector in vectors if vector.regime != "long"]
    assert len(given) == len(draws)
    assert nan_equal(np.concatenate(given).astype(np.float32), wanted.astype(np.float32))
    for vector in vectors:
        exact = truth(kernel, {"x": vector.inputs["x"].astype(np.float64)})["y"]
        assert nan_equal(vector.truth["y"], exact)


def test_bfloat16_is_rounded_from_the_exact_number_and_not_by_way_of_float32():
    # 1 + 2**-8 + 2**-40 is above the middle of two bfloat16 numbers, and on it once rounded to float32
    golden = golden_of("softmax")
    number = np.float64(1 + 2.0**-8 + 2.0**-40)
    x = golden.tensors["x"].astype(np.float64)
    x[:4] = number
    moved = Golden(golden.draws, {**golden.tensors, "x": x})
    asked = generate(BY_NAME["softmax"], "value", "bf16", moved).vectors
    single = next(q for q in asked if q.inputs["x"].shape == (4, 1))
    assert single.inputs["x"].astype(np.float64).ravel().tolist() == [1 + 2.0**-7] * 4
    assert float(np.float32(number).astype(ml_dtypes.bfloat16)) == 1.0


@pytest.mark.parametrize("name", ["softmax", "log-softmax", "glu", "sparsemax"])
def test_row_kernels_that_round_come_with_a_bound_for_every_element(name: str):
    for aspect in ASPECTS:
        for vector in exam_of(name, aspect, "f32").vectors:
            for output, numbers in vector.truth.items():
                assert vector.bounds[output].shape == numbers.shape
                finite = np.isfinite(numbers)
                assert np.all(vector.bounds[output][finite] >= 0)


def test_the_rule_is_told_the_truth_at_zero():
    assert exam_of("sigmoid", "value", "f32").tolerance.at_zero == 0.5
    assert exam_of("sigmoid", "gradient", "f32").tolerance.at_zero == 0.25
    assert exam_of("exponential", "value", "bf16").tolerance.at_zero == 1.0


def test_the_same_exam_is_drawn_every_time():
    for name, dtype in (("mish", "f16"), ("swiglu", "f32")):
        first, second = (exam_of(name, "gradient", dtype).vectors for _ in range(2))
        assert [[bits(array) for array in (q.inputs | q.truth | q.cotangents).values()] for q in first] == [
            [bits(array) for array in (q.inputs | q.truth | q.cotangents).values()] for q in second
        ]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_pattern_of_nan_stands_in_arrays_of_each_length_in_float32(aspect: str):
    vectors = [v for v in exam_of("sigmoid", aspect, "f32").vectors if v.regime == "special"]
    lengths: dict[int, set[int]] = {}
    for vector in vectors:
        x = vector.inputs["x"]
        seen = set(x.view(np.uint32)[np.isnan(x)].tolist())
        for pattern in seen:
            lengths.setdefault(pattern, set()).add(x.size)
            assert np.isnan(next(iter(vector.truth.values()))[np.isnan(x)]).all()
    assert lengths == {int(p): {1, 8, 17, 67} for p in (0x7FC00000, *NAN_PATTERNS.tolist())}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "hard-tanh", "softplus"])
def test_gradients_are_asked_with_cotangents_that_round_vanish_and_are_no_numbers(name: str, dtype: str):
    kernel, fmt = BY_NAME[name], DTYPES[dtype]
    mixed, special = [v for v in exam_of(name, "gradient", dtype).vectors if v.regime == "cotangent"]
    ct = mixed.cotangents["y"].astype(np.float64)
    assert (ct == 0).sum() >= ct.size // 16
    assert {2.0**-20, 2.0**10} <= {2.0 ** np.floor(np.log2(abs(c))) for c in ct[ct != 0]}
    _, exponents = np.frexp(ct[ct != 0])
    assert ((np.ldexp(ct[ct != 0], fmt.precision - exponents) % 2) != 0).any()  # the last bit of a significand is set
    with np.errstate(all="ignore"):
        slopes = truth(kernel, {"x": special.inputs["x"].astype(np.float64)}, {"y": np.ones(special.inputs["x"].size)})
    assert {str(c) for c in special.cotangents["y"].astype(np.float64)} == {"inf", "-inf", "nan"}
    assert (np.abs(slopes["d_x"]) >= 1 / 16).all()
    for kink in kernel.kinks:
        assert (np.abs(mixed.inputs["x"].astype(np.float64) - kink.x) > 2.0**-6).all()
    slope = truth(kernel, {"x": mixed.input_at["d_x"]}, {"y": np.ones(ct.size)})["d_x"]
    np.testing.assert_allclose(mixed.truth["d_x"], ct * slope, rtol=1e-13)  # the stored one is correctly rounded


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "max", "log-softmax-axis1", "glu", "prelu"])
def test_special_elements_stand_in_long_rows_too(name: str, dtype: str):
    kernel = BY_NAME[name]
    lengths = set()
    for vector in exam_of(name, "value", dtype).vectors:
        x = vector.inputs["x"].astype(np.float64)
        axis = x.shape[kernel.axis]
        if vector.regime == "special" and axis > 8:
            lengths.add(axis)
            assert np.isnan(x).any()
            assert np.isinf(x).any()
    halved = name == "glu"
    assert lengths == {34 if halved else 17, 1000, 4096}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "glu", "log-softmax-axis1", "prelu"])
def test_gradients_of_rows_are_asked_with_cotangents_of_all_sizes_and_all_bits(name: str, dtype: str):
    kernel, fmt = BY_NAME[name], DTYPES[dtype]
    vectors = [v for v in exam_of(name, "gradient", dtype).vectors if v.regime == "cotangent"]
    assert [v.inputs["x"].shape[kernel.axis] for v in vectors] == ([34, 1000] if name == "glu" else [17, 1000])
    for vector in vectors:
        ct = vector.cotangents["y"].astype(np.float64)
        assert (ct == 0).any()
        finite = np.where(np.isfinite(ct), ct, 0)
        largest = np.abs(finite.reshape(len(ct), -1)).max(axis=1)
        assert all(((largest >= size) & (largest <= 2 * size)).any() for size in (1.0, 2.0**-20, 2.0**10))
        _, exponents = np.frexp(finite)
        assert ((np.ldexp(finite, fmt.precision - exponents) % 2) != 0).any()
        assert np.isnan(ct).sum() == (1 if "softmax" in name else 0)
        wide = {input_name: array.astype(np.float64) for input_name, array in vector.inputs.items()}
        expected = truth(kernel, wide, {"y": ct})
        assert all(nan_equal(vector.truth[output], expected[output]) for output in expected)


@pytest.mark.parametrize("name", ["softmax", "log-softmax", "max"])
def test_rows_of_large_logits_are_long_too_and_masks_stand_last(name: str):
    vectors = exam_of(name, "value", "f32").vectors
    long = [v.inputs["x"].astype(np.float64) for v in vectors if v.regime == "huge" and v.inputs["x"].shape[-1] > 40]
    assert {x.shape[-1] for x in long} == {67, 1000}
    for x in long:
        assert (x.max(axis=-1) < -1e38).any()  # a running maximum that starts at a finite number is wrong here
        assert (np.abs(x).max(axis=-1) > 1e38).any()
        assert ((x.max(axis=-1) > 9e3) & (x.max(axis=-1) < 2e4)).any()
    special = [v.inputs["x"] for v in vectors if v.regime == "special" and v.inputs["x"].shape[-1] in (17, 1000)]
    assert all((np.isneginf(x[:, -1]) & np.isfinite(x).any(axis=1)).any() for x in special)
