"""The words and counts of a check, as the screen and the page have them."""

from __future__ import annotations

import made_check
import pytest

from actconform.checking.result import RoundingTie, Unjudged
from actconform.checking.spread import LIMIT
from actconform.report.check import summary


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "412 times its bound; what it read is fine"),
        ({"segment": ("a", "b")}, "412 times its bound; what the 2 nodes up to it read is fine"),
        ({"wanted_shape": (1, 9)}, "shape [1, 8, 14, 14] where [1, 9] is right"),
        ({"shape": (), "wanted_shape": (1,)}, "shape [] where [1] is right"),
        ({"shape": (2,), "wanted_shape": ()}, "shape [2] where [] is right"),
        ({"nonfinite": 3}, "3 elements are NaN or infinite, or should be"),
        ({"bound": 0.0}, "0.8818 where it must be exactly 0.880797078"),
    ],
)
def test_what_is_wrong_with_a_layer_is_said_as_what_it_is(fields, words):
    fault = made_check.fault(made_check.faulty_tensor(**fields))
    assert summary.fault_sentence(fault).startswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, f"380 spreads (limit {LIMIT:g}): NOT explained by rounding"),
        ({"spreads": 3.2}, f"3.2 spreads (limit {LIMIT:g}): explained"),
        (
            {"spreads": 3.2, "tied": True},
            f"3.2 spreads (limit {LIMIT:g}): explained, where rounding decides otherwise",
        ),
        ({"unjudged": "rounding decides its shape"}, "not judged: rounding decides its shape"),
        ({"reason": "its shape is [2]"}, "NOT explained by rounding: its shape is [2]"),
        ({"nonfinite": 2}, "NOT explained by rounding: 2 elements are NaN or infinite, or should be"),
        (
            {"spreads": made_check.INF, "got": 3.0, "wanted": 4.0},
            "NOT explained by rounding: 3 where no rounding makes it other than 4",
        ),
    ],
)
def test_the_verdict_of_an_output_in_words(fields, words):
    assert summary.output_words(made_check.output(**{"spreads": 380.0, **fields})) == words


def test_where_rounding_decides_is_told_once_a_node_of_the_sample_with_most():
    ties = [
        RoundingTie(node=node, op_type="Cast", sample=sample, elements=elements, size=1000 * elements)
        for node, sample, elements in (("c", 0, 1), ("d", 0, 3), ("d", 1, 5), ("d", 2, 4))
    ]
    assert list(summary.tie_sentences(ties)) == [
        "rounding decides at c (Cast): 1 of 1,000 elements lies within rounding of its jump",
        "rounding decides at d (Cast): 5 of 5,000 elements lie within rounding of its jump",
    ]


@pytest.mark.parametrize(
    ("runtimes", "words"),
    [
        ([made_check.runtime()], "Explained by rounding"),
        ([made_check.runtime(), made_check.with_fault(name="b"), made_check.ABSENT], "Not explained by rounding"),
        ([made_check.runtime(), made_check.REFUSED], "Not every runtime answered"),
        ([made_check.ABSENT, made_check.REFUSED], "Nothing was compared"),
    ],
)
def test_a_runtime_that_gave_no_answer_is_no_fault_of_rounding(runtimes, words):
    assert summary.check_verdict(made_check.check(*runtimes)) == words


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (made_check.check(), "Rounding explains every output and every layer that was judged."),
        (
            made_check.all_kinds(),
            "encoder.3.norm (LayerNormalization) on ort-cpu is the first layer that rounding does not explain",
        ),
        (made_check.check(made_check.ABSENT), "No runtime gave an answer: nothing was compared."),
        (
            made_check.check(made_check.runtime(status="failed", outputs=[made_check.output(unjudged="no truth")])),
            "No runtime gave an answer that could be judged: nothing was compared.",
        ),
        (
            made_check.check(made_check.runtime(), made_check.REFUSED),
            "Rounding explains what was compared, but openvino gave no answer.",
        ),
    ],
)
def test_the_headline_is_the_verdict_in_one_sentence(result, words):
    assert summary.check_headline(result).startswith(words)


def test_an_output_that_no_layer_explains_accuses_no_layer():
    bad = made_check.output(spreads=380.0)
    fault = made_check.fault(made_check.tensor("gemm"), tensor=None, output=bad, blame="graph")
    sentence = summary.check_headline(made_check.check(made_check.with_fault(fault=fault)))
    assert sentence.startswith("Rounding does not explain gemm (Conv) on ort-cpu: output logits has 380 spreads")
    assert sentence.endswith("no layer that was judged is over its bound.")
    absent = made_check.output(reason="it was not given", explained=False)
    fault = made_check.fault(made_check.tensor("gemm"), tensor=None, output=absent)
    assert summary.fault_sentence(fault).startswith("output logits is NOT explained by rounding: it was not given;")


def test_an_output_counts_in_the_sample_where_it_is_worst():
    outputs = [made_check.output(spreads=3.0), made_check.output(sample=1, spreads=90.0, decided_alike=0)]
    outputs += [made_check.output("b", unjudged="no truth"), made_check.output("b", 2.0, sample=1)]
    runtime = made_check.runtime(outputs=outputs)
    assert [(output.name, output.sample) for output in summary.worst_outputs(runtime)] == [("logits", 1), ("b", 1)]
    assert summary.decisions(runtime, "logits") == (1, 2)


def test_an_addition_at_its_bound_is_not_the_largest_error():
    tensors = [made_check.tensor("add", 1.0, "Add"), made_check.tensor("tanh", 0.6, "Tanh")]
    assert summary.worst_tensor([made_check.level(tensors=tensors)])[1].node == "tanh"
    assert summary.worst_tensor([made_check.level(tensors=tensors[:1])])[1].node == "add"
    wrong = made_check.tensor("sub", 1.5, "Sub")
    assert summary.worst_tensor([made_check.level(tensors=[*tensors, wrong])])[1].node == "sub"
    assert summary.worst_tensor([]) is None


def test_the_power_of_a_level_is_its_loosest_bound_below_the_values_over_all_samples():
    levels = [
        made_check.level(tensors=[made_check.tensor("a", looseness=1e-3)]),
        made_check.level(sample=1, tensors=[made_check.tensor("b", looseness=1e-2), made_check.tensor("c")]),
        made_check.level(
            tensors=[made_check.tensor("d", looseness=1.0), made_check.tensor("e", looseness=float("inf"))]
        ),
        made_check.level("all", tensors=[]),
    ]
    powers = summary.powers(made_check.runtime(levels=levels))
    assert powers == [("none", 3, 1e-2, "b", 2), ("all", 0, 0.0, "", 0)]


def test_nodes_that_another_level_judged_are_not_called_unjudged():
    unjudged = [
        Unjudged("a", "Conv", "x is not known"),
        Unjudged("b", "Fancy", "no bound"),
        Unjudged("c", "Fancy", "no bound"),
    ]
    judged = made_check.level("all", tensors=[made_check.tensor("d", segment=("a", "d"))], unjudged=unjudged[1:])
    runtime = made_check.runtime(levels=[made_check.level(tensors=[], unjudged=unjudged), judged])
    assert summary.unjudged_nodes(runtime) == [("no bound", ["b", "c"], ["Fancy"])]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (412.0, "412"),
        (1234.6, "1,235"),
        (3.04e-6, "3.04e-6"),
        (1.5e12, "1.5e12"),
        (float("inf"), "∞"),
        (0.0, "0"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_digits(value, words):
    assert summary.number_shown(value) == words


@pytest.mark.parametrize("name", [made_check.LONG, made_check.HOSTILE, "a\nb", "x"])
def test_a_name_is_short_and_one_line(name):
    shown = summary.name_shown(name)
    assert len(shown) <= summary.NAME_LETTERS
    assert shown.isprintable()
    assert shown[:1] + shown[-1:] == name[:1] + name[-1:]
