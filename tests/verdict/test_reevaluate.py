"""Two witnesses of a graph: they tell a wrong graph from a wrong runtime, and are silent about what they cannot evaluate."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import parser
from scipy import special

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.comparison.comparator import compare, comparison, structural
from actconform.comparison.layerwise import LAYERS
from actconform.comparison.metamorphic import RelationChecks
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.gates import io_names
from actconform.onnx.subgraph import extract_subgraph
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import TestVectors, generate
from actconform.testdata.memory_vectors import with_layouts
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types import Artifact, Finding, FindingClass
from actconform.types.dtypes import DTYPES, from_hex
from actconform.verdict.reevaluate import LayerReevaluation, Reevaluation, still

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Bundles = list[dict[str, NDArray[Any]]]

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}


@lru_cache
def exam_of(name: str, dtype: str = "f32") -> TestVectors:
    folder = golden_dir()
    return generate(KERNELS[name], "value", dtype, load(folder, read_manifest(folder), name))


def truths(test_vectors: TestVectors) -> Bundles:
    with np.errstate(all="ignore"):
        return [{name: array.astype(q.dtypes[name]) for name, array in q.truth.items()} for q in test_vectors.vectors]


def injected(test_vectors: TestVectors, wrong: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> list[Finding]:
    """Return the findings where a runtime answers wrong(x, y) for the true y."""
    answers = []
    for vector, answer in zip(test_vectors.vectors, truths(test_vectors), strict=True):
        with np.errstate(all="ignore"):
            y = wrong(vector.inputs["x"], answer["y"])
        answers.append({"y": y.astype(answer["y"].dtype)})
    return compare(test_vectors, answers)[1]


def parsed(body: str, opset: int = 20, domain: str = "") -> Artifact:
    extra = f', "{domain}": 1' if domain else ""
    text = f'<ir_version: 10, opset_import: ["": {opset}{extra}]> g (float[n] x) => (float[n] y) {{ {body} }}'
    return Artifact(parser.parse_model(text).SerializeToString(), opset, "converted")


def edited(name: str, dtype: str = "f32", **attributes: float) -> Artifact:
    """Return the authored graph of a kernel with other attributes in its single node."""
    artifact = author(KERNELS[name], dtype)
    model = onnx.load_from_string(artifact.model)
    node = model.graph.node[0]
    kept = [each for each in node.attribute if each.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in attributes.items())])
    return Artifact(model.SerializeToString(), artifact.opset, artifact.path)


def graph_findings(artifact: Artifact, test_vectors: TestVectors) -> list[Finding]:
    """Return what is found where a runtime does just what the graph says."""
    runtime = CorrectlyRoundedEvaluator(artifact.model)
    return compare(test_vectors, [runtime.forward(vector.inputs) for vector in test_vectors.vectors])[1]


def _all_finite(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Tell where nothing is left to convention: gates that close at -inf make NaN in the standard's own formula."""
    return np.isfinite(x) & np.isfinite(y)


def with_worst(findings: list[Finding]) -> list[Finding]:
    chosen = [finding for finding in findings if finding.worst]
    assert chosen
    return chosen


HEALTHY = [
    (name, dtype)
    for name in ("leaky-relu", "elu", "tanh", "gelu-erf", "gelu-tanh", "silu")
    for dtype in ("f32", "f16", "bf16")
    if (name, dtype) != ("silu", "bf16")  # below -88.7 the exp of onnx's own Swish overflows
]
HEALTHY += [("softmax", "f32"), ("softmax-axis1", "f32")]  # in 16 bits onnx's reference rounds too often to agree


@pytest.mark.parametrize(("name", "dtype"), HEALTHY)
def test_a_healthy_graph_is_right_where_a_runtime_is_wrong(name: str, dtype: str) -> None:
    test_vectors = exam_of(name, dtype)
    findings = with_worst(injected(test_vectors, lambda x, y: np.where(_all_finite(x, y), y * 1.25 + 0.25, y)))
    reevaluation = Reevaluation(author(KERNELS[name], dtype), test_vectors)
    for finding in findings:
        testimony, numbers = reevaluation.agreement(finding)
        assert finding.worst is not None
        assert testimony == "right", (finding, numbers)
        assert f"at x={finding.worst.input_hex} the graph gives " in numbers
        assert " correctly rounded, " in numbers


def test_a_nan_and_an_infinity_made_by_a_runtime_are_not_the_graphs() -> None:
    test_vectors = exam_of("tanh")
    reevaluation = Reevaluation(author(KERNELS["tanh"], "f32"), test_vectors)
    for value in (np.nan, np.inf):
        findings = with_worst(injected(test_vectors, lambda x, y, v=value: np.where(np.abs(x) > 20, v, y)))  # type: ignore[misc]
        assert {reevaluation.agreement(finding)[0] for finding in findings} == {"right"}


def test_log_of_sigmoid_is_the_graphs_own_infinity() -> None:
    test_vectors = exam_of("log-sigmoid")
    artifact = parsed("s = Sigmoid(x) y = Log(s)")
    findings = injected(test_vectors, lambda x, y: np.where(x < -104, -np.inf, y))
    infinities = [finding for finding in with_worst(findings) if finding.class_ == "inf"]
    assert infinities
    for finding in infinities:
        testimony, numbers = Reevaluation(artifact, test_vectors).agreement(finding)
        assert testimony == "wrong", numbers
        assert "gives -inf correctly rounded, -inf in onnx's reference" in numbers
    healthy = Reevaluation(author(KERNELS["log-sigmoid"], "f32"), test_vectors)
    assert {healthy.agreement(finding)[0] for finding in infinities} == {"right"}


def test_the_worst_input_need_not_be_the_graphs_worst() -> None:
    """A runtime that is worst where the graph is still right, in the binade where the graph goes wrong, adds little to it."""
    test_vectors = exam_of("log-sigmoid")
    infinities = [
        finding
        for finding in with_worst(injected(test_vectors, lambda x, y: np.where(x < -89, -np.inf, y)))
        if finding.class_ == "inf" and from_hex(finding.interval[0], DTYPES["f32"]) < -104
    ]
    assert infinities
    for finding in infinities:
        assert Reevaluation(parsed("s = Sigmoid(x) y = Log(s)"), test_vectors).agreement(finding)[0] == "wrong"


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [("leaky-relu", "alpha", 0.02), ("leaky-relu", "alpha", 0.01001), ("elu", "alpha", 1.01), ("softmax", "axis", 0)],
)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_wrong_attribute_is_seen_by_both(name: str, attribute: str, value: float, dtype: str) -> None:
    if dtype == "f16" and value == 0.01001:
        pytest.skip("0.1 % is within what float16 tells")
    test_vectors = exam_of(name, dtype)
    artifact = edited(name, dtype, **{attribute: value})
    findings = with_worst(graph_findings(artifact, test_vectors))
    reevaluation = Reevaluation(artifact, test_vectors)
    assert {reevaluation.agreement(finding)[0] for finding in findings} == {"wrong"}


def test_witnesses_that_see_different_things_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    test_vectors = exam_of("leaky-relu")
    wrong = edited("leaky-relu", alpha=0.02)
    finding = with_worst(graph_findings(wrong, test_vectors))[0]
    monkeypatch.setattr("actconform.verdict.reevaluate.reference", lambda _: reference(wrong.model))
    testimony, numbers = Reevaluation(author(KERNELS["leaky-relu"], "f32"), test_vectors).agreement(finding)
    assert testimony == "disagree"
    assert finding.worst is not None
    assert f"{finding.worst.got:.9g} in onnx's reference" in numbers


@pytest.mark.parametrize(
    ("artifact", "why"),
    [
        (parsed("y = com.microsoft.Sampling(x)", domain="com.microsoft"), "Sampling (domain com.microsoft"),
        (parsed("y = RandomNormalLike(x)"), "RandomNormalLike (domain ai.onnx"),
    ],
)
def test_a_graph_that_cannot_be_evaluated_has_no_witness_and_says_why(artifact: Artifact, why: str) -> None:
    test_vectors = exam_of("tanh")
    finding = with_worst(injected(test_vectors, lambda _, y: y + 1))[0]
    reevaluation = Reevaluation(artifact, test_vectors)
    for _ in range(2):
        testimony, evidence = reevaluation.agreement(finding)
        assert testimony == "absent"
        assert evidence.startswith("no second evaluation of the graph: Unsupported: ")
        assert why in evidence


def test_a_graph_of_other_outputs_is_no_witness() -> None:
    test_vectors = exam_of("tanh")
    finding = with_worst(injected(test_vectors, lambda _, y: y + 1))[0]
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] z) { z = Tanh(x) }'
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 20, "converted")
    assert Reevaluation(artifact, test_vectors).agreement(finding)[0] == "absent"


OFF_STRUCTURE: dict[str, Callable[[NDArray[Any]], dict[str, NDArray[Any]]]] = {
    "names": lambda y: {"z": y},
    "shape": lambda y: {"y": y[None]},
    "dtype": lambda y: {"y": y.astype(np.float64)},
}


@pytest.mark.parametrize("class_", OFF_STRUCTURE)
def test_structure_that_is_off_in_the_answers_alone_is_not_the_graphs(class_: str) -> None:
    test_vectors = exam_of("tanh")
    findings = compare(test_vectors, [OFF_STRUCTURE[class_](answer["y"]) for answer in truths(test_vectors)])[1]
    mine = [finding for finding in findings if finding.class_ == class_]
    assert mine
    reevaluation = Reevaluation(author(KERNELS["tanh"], "f32"), test_vectors)
    for finding in mine:
        assert finding.worst is None
        said = "the graph itself shows it neither correctly rounded nor in onnx's reference"
        assert reevaluation.agreement(finding) == ("right", said)


@pytest.mark.parametrize(
    ("class_", "gives", "body"),
    [
        ("names", "float[n] z", "z = Tanh(x)"),
        ("shape", "float[1, n] y", "axis = Constant<value_ints = [0]>() t = Tanh(x) y = Unsqueeze(t, axis)"),
        ("dtype", "double[n] y", "t = Tanh(x) y = Cast<to = 11>(t)"),
    ],
)
def test_structure_that_is_off_in_the_graph_is_seen_by_both(class_: str, gives: str, body: str) -> None:
    test_vectors = exam_of("tanh")
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => ({gives}) {{ {body} }}'
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 20, "converted")
    findings = [finding for finding in graph_findings(artifact, test_vectors) if finding.class_ == class_]
    assert {finding.tensor for finding in findings} == ({"y", "z"} if class_ == "names" else {"y"})
    reevaluation = Reevaluation(artifact, test_vectors)
    said = "the graph itself shows it correctly rounded and in onnx's reference"
    assert {reevaluation.agreement(finding) for finding in findings} == {("wrong", said)}


def test_one_witness_of_a_wrong_shape_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    test_vectors = exam_of("tanh")
    finding = compare(test_vectors, [{"y": answer["y"][None]} for answer in truths(test_vectors)])[1][0]
    artifact = author(KERNELS["tanh"], "f32")
    evaluated = reference(artifact.model)
    monkeypatch.setattr(
        "actconform.verdict.reevaluate.reference", lambda _: lambda given: {"y": evaluated(given)["y"][None]}
    )
    said = "the graph itself shows it in onnx's reference, not correctly rounded"
    assert Reevaluation(artifact, test_vectors).agreement(finding) == ("disagree", said)


def test_a_bias_of_the_graph_is_the_graphs() -> None:
    test_vectors = exam_of("sigmoid")
    biased = parsed(
        "one = Constant<value_float = 1.0000003>() s = Sigmoid(x) m = Mul(s, one) y = Min(m, top) ".replace(
            "y =", "top = Constant<value_float = 1.0>() y ="
        )
    )
    findings = [finding for finding in graph_findings(biased, test_vectors) if finding.class_ == "bias"]
    assert findings
    healthy = author(KERNELS["sigmoid"], "f32")
    assert {Reevaluation(biased, test_vectors).agreement(finding)[0] for finding in findings} == {"wrong"}
    assert {Reevaluation(healthy, test_vectors).agreement(finding)[0] for finding in findings} == {"right"}


def test_a_claim_is_held_against_the_graph_claim_by_claim() -> None:
    test_vectors = exam_of("softmax")
    relation_checks = RelationChecks("softmax", "value", test_vectors)
    doubled = [
        {"y": special.softmax(inputs["x"] * 2, axis=-1).astype("f4")} for _, inputs, _ in relation_checks.calls()
    ]
    findings = relation_checks.violations(doubled)
    assert [finding.class_ for finding in findings] == ["property"]  # softmax of [z, 0] is no longer sigmoid(z)
    (finding,) = findings
    assert (
        Reevaluation(author(KERNELS["softmax"], "f32"), test_vectors, relation_checks).agreement(finding)[0] == "right"
    )
    over_batch = edited("softmax", axis=0)
    assert Reevaluation(over_batch, test_vectors, relation_checks).agreement(finding)[0] == "wrong"
    other = structural(
        FindingClass.PROPERTY,
        finding.regime,
        finding.tensor,
        "softmax has another claim: 2, not 1",
        relation="softmax has another claim",
    )
    assert Reevaluation(over_batch, test_vectors, relation_checks).agreement(other)[0] == "right"
    assert Reevaluation(over_batch, test_vectors).agreement(finding) == ("absent", "")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_reference_witness_is_accurate_in_the_tails(dtype: Any) -> None:
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    x = np.array([-0.0, 1e-9, 1.0, -1.0, -3.0, -5.0, -5.5, -8.0, -12.5], dtype)
    wide = x.astype(np.float64)
    tail = 0.5 * wide * special.erfc(-wide / math.sqrt(2))
    cases = {
        "Erf(x)": special.erf(wide),
        "Gelu(x)": tail,
        'Gelu<approximate = "tanh">(x)': wide * special.expit(2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)),
    }
    for call, truth in cases.items():
        text = f'<ir_version: 10, opset_import: ["": 20]> g ({kind}[n] x) => ({kind}[n] y) {{ y = {call} }}'
        got = reference(parser.parse_model(text).SerializeToString())({"x": x})["y"]
        assert got.dtype == dtype
        limit, least = (3e-7, 1e-45) if dtype is np.float32 else (1e-12, 0.0)
        np.testing.assert_allclose(got, truth, rtol=limit, atol=least)


def test_other_answers_still_break_the_limit_or_no_longer_do() -> None:
    test_vectors = exam_of("tanh")
    wrong = [{"y": answer["y"] + np.float32(0.5)} for answer in truths(test_vectors)]
    for finding in with_worst(compare(test_vectors, wrong)[1]):
        assert still(finding, test_vectors, wrong)
        assert not still(finding, test_vectors, truths(test_vectors))
        assert still(finding, test_vectors, [{"y": answer["y"] - np.float32(0.5)} for answer in truths(test_vectors)])
        assert still(finding, test_vectors, [{} for _ in test_vectors.vectors])  # no answer mends nothing


# The layers of a model's graph

HIDDEN = next(model for model in networks() if model.name == "regression-softmax-hidden")
TENSORS = {**draw_inputs(HIDDEN), **draw_parameters(HIDDEN)}


def test_what_only_many_elements_show_is_gone_only_where_those_are() -> None:
    test_vectors = exam_of("sigmoid", "f16")

    def truncated(answers: Bundles) -> Bundles:
        def towards_zero(y: NDArray[Any], exact: NDArray[Any]) -> NDArray[Any]:
            rounded = y.astype(np.float16)
            beyond = np.abs(rounded.astype(np.float64)) > np.abs(exact)
            return np.where(beyond, np.nextafter(rounded, np.float16(0)), rounded)

        return [
            {"y": towards_zero(answer["y"], vector.truth["y"])}
            for answer, vector in zip(answers, test_vectors.vectors, strict=True)
        ]

    wrong = truncated(truths(test_vectors))
    _, findings = compare(test_vectors, wrong)
    (finding, *_) = [each for each in findings if each.class_ == "bias" and each.worst]
    assert still(finding, test_vectors, wrong)
    assert not still(finding, test_vectors, truths(test_vectors))


def with_epsilon(layer: str, epsilon: float) -> Artifact:
    """Return the authored graph of HIDDEN with another epsilon in one layer."""
    artifact = author_model(HIDDEN, "f32")
    model = onnx.load_from_string(artifact.model)
    (node,) = (node for node in model.graph.node if node.name.startswith(f"{layer}/"))
    (attribute,) = (one for one in node.attribute if one.name == "epsilon")
    attribute.f = epsilon
    return Artifact(model.SerializeToString(), artifact.opset, "exported")


def at_layer(name: str, class_: str = "scaled-error") -> Finding:
    return structural(class_, LAYERS, name, "")


def layer_witnesses(artifact: Artifact) -> LayerReevaluation:
    return LayerReevaluation(artifact, HIDDEN, TENSORS, DTYPES["f32"])


def test_a_healthy_graph_is_right_at_every_layer() -> None:
    reevaluation = layer_witnesses(author_model(HIDDEN, "f32"))
    for layer in HIDDEN.layers:
        testimony, words = reevaluation.agreement(at_layer(layer.name))
        assert testimony == "right", words
        assert words == (
            f"layer {layer.name} of the graph is within its bound correctly rounded, within its bound in onnx's reference"
        )


@pytest.mark.parametrize("fault", ["norm1", "norm3"])
def test_a_wrong_epsilon_in_a_graph_is_wrong_at_its_layer_alone(fault: str) -> None:
    reevaluation = layer_witnesses(with_epsilon(fault, 1e-3))
    for layer in HIDDEN.layers:
        testimony, words = reevaluation.agreement(at_layer(layer.name))
        assert testimony == ("wrong" if layer.name == fault else "right"), words
        if layer.name == fault:
            assert words.count("times its bound") == 2


def test_witnesses_of_layers_that_see_different_things_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "actconform.verdict.reevaluate.reference", lambda _: reference(with_epsilon("norm2", 1e-3).model)
    )
    testimony, words = layer_witnesses(author_model(HIDDEN, "f32")).agreement(at_layer("norm2"))
    assert testimony == "disagree"
    assert words.startswith("layer norm2 of the graph is within its bound correctly rounded, off by ")


def test_a_nan_that_the_graph_makes_is_its_own() -> None:
    with np.errstate(all="ignore"):
        testimony, words = layer_witnesses(with_epsilon("norm2", -100.0)).agreement(at_layer("norm2", "nan-made"))
    assert (testimony, words) == (
        "wrong",
        "layer norm2 of the graph is nan-made correctly rounded, nan-made in onnx's reference",
    )


def test_a_witness_reads_its_own_values_and_is_allowed_nothing_for_others() -> None:
    """A sum of a product that is not the one shown: the allowance for runtimes that fuse is none for a graph."""
    block = next(model for model in networks() if model.name == "attention-block")
    model = onnx.load_from_string(author_model(block, "f32").model)
    at, (add,) = next((at, [node]) for at, node in enumerate(model.graph.node) if node.name.startswith("sum1/"))
    add.input[list(add.input).index("layer.attention")] = "scaled"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 + 2.0**-19), "factor"))
    model.graph.node.insert(at, onnx.helper.make_node("Mul", ["layer.attention", "factor"], ["scaled"], name="scale"))
    tensors = {**draw_inputs(block), **draw_parameters(block)}
    reevaluation = LayerReevaluation(Artifact(model.SerializeToString(), 24, "exported"), block, tensors, DTYPES["f32"])
    assert reevaluation.agreement(at_layer("sum1"))[0] == "wrong"
    assert reevaluation.agreement(at_layer("attention"))[0] == "right"


def test_a_graph_that_dropped_an_input_is_a_witness_of_its_layers() -> None:
    artifact = with_epsilon("norm2", 1e-3)
    kept = [name for name in io_names(artifact.model)[1] if name not in ("loss", "layer.loss")]
    part = Artifact(extract_subgraph(artifact.model, kept), artifact.opset, artifact.path)
    assert "target" not in io_names(part.model)[0]
    assert layer_witnesses(part).agreement(at_layer("norm2"))[0] == "wrong"
    assert layer_witnesses(part).agreement(at_layer("norm3"))[0] == "right"


def test_layers_of_a_graph_that_cannot_be_evaluated_have_no_witness() -> None:
    model = onnx.load_from_string(author_model(HIDDEN, "f32").model)
    next(node for node in model.graph.node if node.op_type == "Softsign").domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    reevaluation = layer_witnesses(Artifact(model.SerializeToString(), 24, "exported"))
    for _ in range(2):
        testimony, words = reevaluation.agreement(at_layer("norm2"))
        assert testimony == "absent"
        assert words.startswith("no second evaluation of the graph: Unsupported: ")
    assert layer_witnesses(Artifact(b"no graph", 20, "")).agreement(at_layer("norm2"))[0] == "absent"


def test_layers_that_the_graph_does_not_give_are_missing_to_the_witnesses_too() -> None:
    artifact = author_model(HIDDEN, "f32")
    kept = [name for name in io_names(artifact.model)[1] if name != "layer.norm2"]
    part = Artifact(extract_subgraph(artifact.model, kept), artifact.opset, artifact.path)
    testimony, words = layer_witnesses(part).agreement(at_layer("norm2", "names"))
    assert testimony == "wrong"
    assert "layer norm2 of the graph is names correctly rounded" in words


def test_a_call_at_which_the_graph_fails_leaves_the_others_judged() -> None:
    """A batch that is baked in: the graph has answers at its own alone."""
    exam = exam_of("relu")
    regimes = {vector.regime for vector in exam.vectors}
    sizes = {vector.regime: vector.inputs["x"].size for vector in exam.vectors}
    regime = next(name for name in regimes if [vector.regime for vector in exam.vectors].count(name) == 1)
    body = f"n = Constant <value_ints = [{sizes[regime]}]> () z = Neg(x) y = Reshape(z, n)"
    findings = injected(exam, lambda x, y: np.where(np.isnan(x), x, -x))
    witness = Reevaluation(parsed(body), exam)
    mine = [finding for finding in findings if finding.regime == regime and finding.worst]
    others = [finding for finding in findings if finding.regime not in (regime, "special") and finding.worst]
    assert {witness.agreement(finding)[0] for finding in mine} == {"wrong"}
    assert all(
        witness.agreement(finding)[0] == "absent" for finding in others if sizes[finding.regime] != sizes[regime]
    )


def test_a_layout_that_agrees_hides_no_fault_of_the_graph_in_one_that_does_not() -> None:
    test_vectors = with_layouts(KERNELS["tanh"], "value", exam_of("tanh"))
    of_layouts = [
        vector for vector in test_vectors.vectors if vector.regime == "memory" and vector.layout != "broadcast"
    ]
    test_vectors = msgspec.structs.replace(test_vectors, vectors=of_layouts)
    artifact = parsed("t = Tanh(x) y = Add(t, t)")
    wrong = [CorrectlyRoundedEvaluator(artifact.model).forward(vector.inputs) for vector in of_layouts]
    answers = list(wrong)
    answers[0] = {"y": of_layouts[0].truth["y"].astype(np.float32)}
    compared = comparison(test_vectors, answers)
    reevaluation = Reevaluation(artifact, test_vectors, compared=compared)
    assert {reevaluation.agreement(finding)[0] for finding in with_worst(compared.findings)} == {"wrong"}
