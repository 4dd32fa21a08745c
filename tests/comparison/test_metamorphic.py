"""Claims as a case makes them: further calls in the case's dtype, and a finding for each claim that the answers break."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.comparison.metamorphic import RelationChecks
from actconform.oracle import truth
from actconform.oracle.layers.model import values
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import STORAGE, TestVectors, generate
from actconform.testdata.metamorphic import REGIME, relations
from actconform.testdata.model_vectors import generate_model
from actconform.types.dtypes import DTYPES
from actconform.types.model import OUTPUT

if TYPE_CHECKING:
    from actconform.types import Finding

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks()}


@functools.cache
def exam_of(subject: str, aspect: Any, dtype: str, *, constants: bool = False) -> TestVectors:
    if subject in MODELS:
        return generate_model(MODELS[subject], aspect, dtype, constants=constants)
    return generate(KERNELS[subject], aspect, dtype, load(golden_dir(), read_manifest(golden_dir()), subject))


def claims_of(subject: str, aspect: Any = "value", dtype: str = "f32", *, constants: bool = False) -> RelationChecks:
    return RelationChecks(subject, aspect, exam_of(subject, aspect, dtype, constants=constants))


def exact(subject: str, aspect: Any = "value", dtype: str = "f32") -> list[dict[str, Any]]:
    """Answer every call with the truth, rounded once."""
    answers = []
    for _, inputs, cotangents in claims_of(subject, aspect, dtype).calls():
        if subject in MODELS:
            wide = {name: array.astype(float) for name, array in inputs.items()}
            answers.append({OUTPUT: values(MODELS[subject], wide)[MODELS[subject].output].astype(STORAGE[dtype])})
            continue
        kernel = KERNELS[subject]
        g = {"y": cotangents["y"].astype(float)} if cotangents else None
        found = truth(kernel, {"x": inputs["x"].astype(float)}, g)
        kind = np.int64 if kernel.output_dtype == "int64" else STORAGE[dtype]
        answers.append({name: np.asarray(array).astype(kind) for name, array in found.items()})
    return answers


def words(findings: list[Finding]) -> list[str]:
    return [finding.evidence.partition(":")[0] for finding in findings]


CASES = [(subject, "value") for subject in ("softmax", "relu", "argmax", "linear-stack")] + [("softmax", "gradient")]


@pytest.mark.parametrize(("subject", "aspect"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_answers_break_nothing(subject: str, aspect: str, dtype: str) -> None:
    answers = exact(subject, aspect, dtype)
    assert answers
    assert claims_of(subject, aspect, dtype).violations(answers) == []


@pytest.mark.parametrize(("dtype", "storage"), [("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_calls_are_in_the_dtype_of_the_case(dtype: str, storage: Any) -> None:
    for subject, aspect in CASES:
        for regime, inputs, cotangents in claims_of(subject, aspect, dtype).calls():
            assert regime == REGIME
            assert {array.dtype for array in (*inputs.values(), *(cotangents or {}).values())} == {np.dtype(storage)}
            assert (cotangents is not None) == (aspect == "gradient")
            for array in (cotangents or {}).values():
                assert array.shape == inputs["x"].shape


def test_every_claim_of_the_aspect_has_its_calls_in_order() -> None:
    calls = list(claims_of("softmax").calls())
    wanted = [x for relation in relations("softmax", "value") for x in relation.inputs]
    assert len(calls) == len(wanted) == 5
    for (_, inputs, _), x in zip(calls, wanted, strict=True):
        np.testing.assert_array_equal(inputs["x"], x)
    assert len(list(claims_of("softmax", "gradient").calls())) == 6


def test_a_subject_without_claims_has_no_calls_and_no_findings() -> None:
    for relation_checks in (claims_of("elu"), claims_of("relu", "gradient"), claims_of("mlp-relu")):
        assert list(relation_checks.calls()) == []
        assert relation_checks.violations([]) == []


def test_the_other_inputs_of_a_model_are_those_of_the_case() -> None:
    vector, *_ = exam_of("linear-stack", "value", "f32", constants=False).vectors
    calls = list(claims_of("linear-stack").calls())
    assert len(calls) == 4
    for _, inputs, _ in calls:
        assert inputs.keys() == vector.inputs.keys()
        assert all(inputs[name] is array for name, array in vector.inputs.items() if name != "x")
        assert inputs["x"].shape == vector.inputs["x"].shape
    assert [list(inputs) for _, inputs, _ in claims_of("linear-stack", constants=True).calls()] == [["x"]] * 4


def test_a_broken_claim_is_a_property_finding_that_says_what_does_not_hold() -> None:
    answers = exact("softmax")
    answers[0]["y"] = answers[0]["y"] * np.float32(1.001)
    (finding,) = claims_of("softmax").violations(answers)
    assert (finding.class_, finding.regime, finding.tensor, finding.worst) == ("property", REGIME, "y", None)
    assert finding.evidence.startswith("softmax is not negative and sums to 1: the sum of a softmax is off 1 by 0.001")
    (finding,) = claims_of("softmax", "gradient").violations(
        [{"d_x": np.ones((4, 1))}, *exact("softmax", "gradient")[1:]]
    )
    assert finding.tensor == "d_x"
    assert finding.evidence == "softmax of one unit has no gradient: softmax of one unit has the gradient 1, not 0"


@pytest.mark.parametrize("call", range(5))
def test_each_answer_is_held_against_its_own_claim(call: int) -> None:
    owner = [relation.relation for relation in relations("softmax", "value") for _ in relation.inputs]
    answers = exact("softmax")
    answers[call] = {"y": np.roll(answers[call]["y"], 1, axis=-1) + np.float32(0.25)}
    assert words(claims_of("softmax").violations(answers)) == [f"softmax {owner[call]}"]


def test_several_claims_can_break_at_once() -> None:
    answers = [{"y": 0.9 * answer["y"]} for answer in exact("softmax")]
    found = words(claims_of("softmax").violations(answers))
    assert found == [
        "softmax is not negative and sums to 1",
        "softmax of one unit is the constant 1",
        "softmax of [z, 0] is sigmoid(z)",
    ]


@pytest.mark.parametrize(("subject", "aspect"), CASES)
@pytest.mark.parametrize("how", ["nan", "missing", "other name", "text", "empty", "misshapen", "none at all"])
def test_what_is_no_answer_breaks_every_claim(subject: str, aspect: str, how: str) -> None:
    tensor = "y" if aspect == "value" else "d_x"
    answers = exact(subject, aspect)
    replaced: dict[str, Any] = {
        "nan": lambda array: {tensor: np.full(array.shape, np.nan)},
        "missing": lambda _: {},
        "other name": lambda array: {"out": array},
        "text": lambda array: {tensor: array.astype("U9")},
        "empty": lambda array: {tensor: array[..., :0]},
        "misshapen": lambda array: {tensor: array[:1].repeat(3, axis=0)},
    }
    answers = [] if how == "none at all" else [replaced[how](answer[tensor]) for answer in answers]
    findings = claims_of(subject, aspect).violations(answers)
    assert len(findings) == len(relations(subject, aspect))
    if how in ("missing", "other name", "text"):
        assert all(finding.evidence.endswith(f"no {tensor} of numbers") for finding in findings)
    if how in ("empty", "misshapen"):
        assert all(f"{tensor} has the shape [" in finding.evidence for finding in findings)
