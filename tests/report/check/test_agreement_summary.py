"""How far columns agree over a data set, in words: a sentence for each column, what is missing left out."""

from __future__ import annotations

from actconform.checking.agreement_result import Agreement, MetricAgreement, OutputAgreement, SampleFailure
from actconform.report.check.agreement_summary import agreement_sentences

LOGITS = OutputAgreement(
    name="logits",
    samples=64,
    rows=64,
    top_1=61 / 64,
    top_5=1.0,
    ranked=64,
    rank_correlation=0.998,
    cosine=0.99991,
    least_cosine=0.98,
    largest_error=0.25,
    largest_error_sample=7,
    magnitude=8.0,
)


def agreement(**fields):
    return Agreement(
        **{"expected": "torch", "actual": "ort-cpu", "data": "val.npz", "samples": 64, "outputs": [LOGITS]} | fields
    )


def only(**fields):
    (sentence,) = agreement_sentences([agreement(**fields)])
    return sentence


def test_decisions_rankings_angles_and_errors_are_told():
    assert only() == (
        "ort-cpu with torch over 64 samples of val.npz: logits top-1 95.31 %, top-5 100 %, rank correlation 0.998000, "
        "cosine 0.999910000 (least 0.980000000), largest error 0.25 of 8 in sample 7"
    )


def test_two_columns_that_agree_alike_are_two_sentences():
    sentences = list(agreement_sentences([agreement(), agreement(actual="openvino")]))
    assert len(set(sentences)) == 2


def test_an_output_without_a_ranking_has_its_error_alone():
    words = only(
        outputs=[OutputAgreement(name="mask", largest_error=2.0, magnitude=4.0, largest_error_sample=0, reshaped=1)]
    )
    assert words.endswith("mask largest error 2 of 4 in sample 0, 1 sample of another shape")


def test_the_metric_is_told_for_both_or_for_the_pair():
    both = MetricAgreement(name="net:f1", samples=64, expected=0.91, actual=0.885, differing=3)
    assert only(metric=both).endswith("net:f1: 0.885 against 0.91, other in 3 of 64 samples")
    pair = MetricAgreement(name="net:distance", compares=True, samples=64, actual=0.5)
    assert only(metric=pair).endswith("net:distance: 0.5")
    nowhere = MetricAgreement(name="net:f1", undefined=64)
    assert only(metric=nowhere).endswith("net:f1: undefined on every sample")


def test_failures_and_a_column_that_was_given_up_are_told():
    failure = SampleFailure(3, "ort-cpu", "crash", "was killed by SIGSEGV")
    words = only(samples=0, failed=8, failures=[failure], status="given up", outputs=[], notes=("2 rows are left out",))
    assert words == (
        "ort-cpu with torch over 0 samples of val.npz (given up): 8 without an answer, the first, 3, on ort-cpu: was killed by SIGSEGV; "
        "2 rows are left out"
    )
