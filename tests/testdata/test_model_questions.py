"""What a model is asked: each question differs in what its name says, and says what has no one answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.comparison.comparator import compare
from actconform.errors import Unsupported
from actconform.oracle.layers.model import values
from actconform.testdata.model_questions import SAFE_IN_F16, ModelQuestion, draw_question, questions_of
from actconform.testdata.model_vectors import generate_model
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT, Input

MODELS = {model.name: model for model in networks()}


def asked(name: str, aspect: Any = "value", dtype: str = "f32", *, constants: bool = False) -> dict[str, ModelQuestion]:
    questions = questions_of(MODELS[name], aspect, DTYPES[dtype], constants=constants)
    return {question.regime: question for question in questions}


def test_small_models_are_asked_other_batches_and_numbers_and_published_ones_once() -> None:
    assert list(asked("blobs-mlp")) == [
        "ordinary", "batch-1", "another-batch", "large", "large-logits", "far-from-0", "nan",
    ]  # fmt: skip
    assert "large-logits" not in asked("blobs-mlp", constants=True)
    assert list(asked("bare-pools", "gradient")) == ["ordinary", "batch-1", "another-batch", "ties"]
    assert list(asked("blobs-mlp@published")) == ["ordinary"]


def test_batches_are_one_and_one_that_no_small_power_of_two_divides() -> None:
    for name, model in MODELS.items():
        if PUBLISHED in name:
            continue
        questions = asked(name)
        assert questions["batch-1"].batch == 1
        batch = questions["another-batch"].batch
        assert batch != model.batch
        assert batch % 4 > 1


def test_statistics_of_one_number_are_not_asked_for() -> None:
    target = Input(name="target", shape=(3,), draw="normal", role="target")
    layers = [
        layer("norm", "batch-norm", "x", epsilon=1e-3, momentum=0.9),
        layer(LOSS, "mean-squared-error", "norm", "target"),
    ]
    inputs = [Input(name="x", shape=(3,), draw="normal"), target]
    for training in (False, True):
        model = describe("flat-norm", "a test", inputs, layers, output="norm", batch=4, training=training)
        regimes = [question.regime for question in questions_of(model, "value", DTYPES["f32"], constants=False)]
        assert ("batch-1" in regimes) is not training


def test_inputs_are_what_the_question_says() -> None:
    model = MODELS["mlp-relu"]
    drawn = {regime: draw_question(model, question)["x"] for regime, question in asked(model.name).items()}
    assert len({array.tobytes() for array in drawn.values()}) == len(drawn)
    assert 50 < np.std(drawn["large"]) < 200
    assert abs(np.mean(drawn["far-from-0"]) - 1000) < 1
    assert np.isnan(drawn["nan"]).sum(axis=1).tolist() == [0, 0, 0, 1]
    ties = draw_question(MODELS["bare-pools"], asked("bare-pools")["ties"])["x"]
    np.testing.assert_array_equal(ties, np.rint(ties))


def test_logits_are_enlarged_by_the_parameters_that_give_them() -> None:
    model = MODELS["multinomial-latent"]
    plain, large = (
        draw_question(model, question._replace(regime="large-logits")) for question in
        (ModelQuestion("", model.batch), asked(model.name)["large-logits"])
    )  # fmt: skip
    differing = {name for name in plain if plain[name].tobytes() != large[name].tobytes()}
    assert differing == {"bits.kernel", "bits.bias"}
    assert np.abs(values(model, large)["bits"]).max() > 88


@pytest.mark.parametrize("name", ["attention-softmax", "mlp-relu"])
def test_large_numbers_in_float16_overflow_nowhere_but_in_sums(name: str) -> None:
    model = MODELS[name]
    layers = values(model, draw_question(model, asked(name, dtype="f16")["large"]))
    largest = max(np.abs(value).max() for layer_name, value in layers.items() if layer_name != LOSS)
    assert SAFE_IN_F16 / 4 < largest <= SAFE_IN_F16


def test_cotangents_of_a_loss_have_all_bits_or_are_a_scale() -> None:
    vectors = generate_model(MODELS["linear-stack"], "gradient", "f32", constants=False).vectors
    given = {vector.regime: float((vector.cotangents or {})[LOSS]) for vector in vectors}
    assert given == {"ordinary": 1.0, "batch-1": float(np.float32(0.37)), "another-batch": 1024.0}
    for vector in vectors:  # d loss / d bias of the last layer is a mean of signs
        target, steps = vector.inputs["target"], given[vector.regime] / vector.inputs["target"].size
        assert np.abs(vector.truth["d_dense3.bias"]).max() <= len(target) * steps * (1 + 1e-12)


def answers(name: str, change: Any = lambda regime, y: y) -> dict[str, set[str]]:
    """Return the classes of findings by regime where a flawless "y" is changed."""
    test_vectors = generate_model(MODELS[name], "value", "f32", constants=True, regimes=["ordinary", "nan"])
    outputs = [
        {OUTPUT: np.asarray(change(vector.regime, vector.truth[OUTPUT].astype(np.float32)))}
        for vector in test_vectors.vectors
    ]
    found: dict[str, set[str]] = {}
    for finding in compare(test_vectors, outputs)[1]:
        found.setdefault(finding.regime, set()).add(finding.class_)
    return found


def test_a_nan_stays_in_its_sample() -> None:
    (vector,) = generate_model(MODELS["mlp-relu"], "value", "f32", constants=True, regimes=["nan"]).vectors
    assert np.isnan(vector.truth[OUTPUT]).ravel().tolist() == [False, False, False, True]
    assert np.isfinite(vector.bounds[OUTPUT]).all()
    assert answers("mlp-relu") == {}
    assert answers("mlp-relu", lambda _, y: np.nan_to_num(y)) == {"nan": {"nan-lost"}}
    spread = answers("mlp-relu", lambda regime, y: y + 0 * y.sum() if regime == "nan" else y)
    assert spread == {"nan": {"nan-made"}}


def test_ties_demand_the_first_maximum_exactly() -> None:
    (vector,) = generate_model(MODELS["bare-pools"], "gradient", "f32", constants=False, regimes=["ties"]).vectors
    d_x, bound = vector.truth["d_x"], vector.bounds["d_x"]
    assert bound.max() < 1e-4 * np.abs(d_x).max()


def test_a_loss_that_frameworks_clip_elsewhere_is_only_to_be_a_number() -> None:
    test_vectors = generate_model(MODELS["blobs-mlp"], "value", "f32", constants=False)
    bounds = {vector.regime: vector.bounds[LOSS] for vector in test_vectors.vectors}
    assert {regime for regime, bound in bounds.items() if np.isinf(bound)} == {"large", "large-logits", "far-from-0"}


def test_probabilities_that_round_to_1_have_no_gradient_of_their_logarithm_in_16_bits() -> None:
    with pytest.raises(Unsupported, match="rounds to 1 in f16"):
        generate_model(MODELS["image-cnn-softmax1"], "gradient", "f16", constants=False)
    assert generate_model(MODELS["image-cnn-softmax1"], "value", "f16", constants=False).vectors


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_the_truth_in_16_bits_is_of_the_numbers_that_are_given(dtype: str) -> None:
    model = MODELS["linear-stack"]
    (vector,) = generate_model(model, "value", dtype, constants=False, regimes=["ordinary"]).vectors
    wide = {name: array.astype(np.float64) for name, array in vector.inputs.items()}
    np.testing.assert_array_equal(vector.truth[OUTPUT], values(model, wide)[model.output])
