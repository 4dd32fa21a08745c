"""How far columns agree over a data set, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.report.check.summary import SENTENCE_LETTERS, name_shown, number_shown
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.checking.agreement_result import Agreement, MetricAgreement, OutputAgreement

OUTPUTS_SHOWN = 4


def agreement_sentences(agreements: Sequence[Agreement]) -> Iterator[str]:
    """Yield a sentence for each column on how far it agrees: decisions, rankings, angles, the largest error, the user's metric, failures."""
    for agreement in agreements:
        who = f"{name_shown(agreement.actual)} with {name_shown(agreement.expected)}"
        samples = f"{number_of(agreement.samples, 'sample')} of {name_shown(agreement.data)}"
        words = f"{who} over {samples}{'' if agreement.status == 'compared' else f' ({agreement.status})'}"
        yield ": ".join(filter(None, [words, "; ".join(_details(agreement))]))


def _details(agreement: Agreement) -> Iterator[str]:
    for output in agreement.outputs[:OUTPUTS_SHOWN]:
        yield f"{name_shown(output.name)} {', '.join(_of_output(output))}"
    if len(agreement.outputs) > OUTPUTS_SHOWN:
        yield f"{number_of(len(agreement.outputs) - OUTPUTS_SHOWN, 'more output')}, all in check.json"
    if agreement.metric is not None:
        yield _of_metric(agreement.metric)
    for failure in agreement.failures[:1]:
        yield (
            f"{agreement.failed:,} without an answer, the first, {failure.index}, on {name_shown(failure.column)}: "
            f"{one_line(failure.message, SENTENCE_LETTERS)}"
        )
    yield from (one_line(note, SENTENCE_LETTERS) for note in agreement.notes)


def _of_output(output: OutputAgreement) -> Iterator[str]:
    if output.top_1 is not None:
        yield f"top-1 {_share(output.top_1)}"
    if output.top_5 is not None:
        yield f"top-5 {_share(output.top_5)}"
    if output.rank_correlation is not None:
        yield f"rank correlation {output.rank_correlation:.6f}"
    if output.cosine is not None:
        yield f"cosine {output.cosine:.9f} (least {output.least_cosine:.9f})"
    yield f"largest error {number_shown(output.largest_error)} of {number_shown(output.magnitude)} in sample {output.largest_error_sample}"
    for count, words in (
        (output.nonfinite, ("element NaN or infinite in one alone", "elements NaN or infinite in one alone")),
        (output.reshaped, ("sample of another shape", "samples of another shape")),
        (output.absent, ("sample without it", "samples without it")),
    ):
        if count:
            yield number_of(count, *words)


def _of_metric(metric: MetricAgreement) -> str:
    if metric.actual is None or (metric.expected is None and not metric.compares):
        return f"{name_shown(metric.name)}: undefined on every sample"
    if metric.compares or metric.expected is None:
        return f"{name_shown(metric.name)}: {number_shown(metric.actual)}"
    return (
        f"{name_shown(metric.name)}: {number_shown(metric.actual)} against {number_shown(metric.expected)}, "
        f"other in {metric.differing:,} of {number_of(metric.samples, 'sample')}"
    )


def _share(share: float) -> str:
    return f"{100 * share:.4g} %"
