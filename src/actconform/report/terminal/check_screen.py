"""A check on the terminal: outputs, the first fault and whose it is, and how sharp the test was."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.text import Text

from actconform.report.check.agreement_summary import agreement_sentences
from actconform.report.check.summary import (
    BLAME_MEANS,
    SENTENCE_LETTERS,
    SPREAD_MEANS,
    batch_sizes,
    check_verdict,
    decisions,
    fault_place,
    fault_sentence,
    level_words,
    name_shown,
    number_shown,
    output_words,
    powers,
    relative_error,
    share_shown,
    tie_sentences,
    uncounted_words,
    unjudged_nodes,
    worst_outputs,
    worst_tensor,
)
from actconform.report.check.trained_summary import layer_sentences, trained_of, weight_sentences
from actconform.report.terminal.screen import FACTS_SHOWN
from actconform.text import listed, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from actconform.checking.result import CheckResult, OutputCheck, RuntimeCheck
    from actconform.report.check.exports import ExportsResult

WIDEST = 100  # columns
LABEL = 9  # columns of FIRST, BLAME and their like
OUTPUTS_SHOWN = 8
EVIDENCE_SHOWN = 8
REASONS_SHOWN = 5
NAMES_SHOWN = 3
VERSIONS_SHOWN = (*FACTS_SHOWN, "onnx")
DETAILS_SHOWN = ("device", "cpu_capability")
STYLES = {
    "explained": "bold green",
    "not explained": "bold red",
    "at fault": "bold red",
    "failed": "bold red",
    "not judged": "yellow",
    "unavailable": "yellow",
    "FIRST": "bold red",
    "BLAME": "bold red",
    "GRAPH": "yellow",
}


def print_check(console: Console, result: CheckResult, wrote: Sequence[str] = ()) -> None:
    """Print the check; `wrote` are the files that were written."""
    for line in check_lines(result, min(console.width, WIDEST), wrote):
        console.print(line, soft_wrap=True)


def print_first_fault(console: Console, result: CheckResult) -> None:
    """Print the first fault of the columns in the order of the graph, or that there is none, with the largest error."""
    width = min(console.width, WIDEST)
    faulty = [runtime for runtime in result.runtimes if runtime.fault is not None]
    for runtime in faulty:
        console.print(Text(f"on {name_shown(runtime.name)}", "bold"), soft_wrap=True)
        for line in _fault(result, runtime, width):
            console.print(line, soft_wrap=True)
    failed = [runtime for runtime in result.runtimes if runtime.reason]
    for runtime in failed:
        for line in _labelled("", f"{name_shown(runtime.name)}: {one_line(runtime.reason, SENTENCE_LETTERS)}", width):
            console.print(line, soft_wrap=True)
    for runtime in [] if faulty or failed else result.runtimes:
        console.print(
            Text(f"on {name_shown(runtime.name)}: rounding explains every layer that was judged"), soft_wrap=True
        )
        for line in _noise(runtime, width):
            console.print(line, soft_wrap=True)


def print_exports(console: Console, exports: ExportsResult) -> None:
    """Print a line for each export of a trained model: its verdict, or why there was no graph."""
    width = min(console.width, WIDEST)
    console.print(Text(f"\n{name_shown(exports.source)}, exported", "bold"), soft_wrap=True)
    for export in exports.exports:
        name = export.exporter or export.folder
        if export.result is None:
            verdict, style = f"not exported: {one_line(export.failure, SENTENCE_LETTERS)}", "yellow"
        else:
            verdict, style = check_verdict(export.result), "" if export.result.explained else "red"
        for line in _wrapped(f"{name_shown(name):<20} {verdict}", width, "  "):
            console.print(Text(line, style), soft_wrap=True)


def check_lines(result: CheckResult, width: int = WIDEST, wrote: Sequence[str] = ()) -> list[Text]:
    """Return the lines of the screen, none wider than `width` columns where letters have one."""
    lines = [Text(line) for line in _wrapped(_subject(result), width)]
    lines += _labelled("", f"(a spread: {SPREAD_MEANS})", width, "dim") if _has_spreads(result) else []
    for runtime in result.runtimes:
        if runtime.status != "unavailable":
            lines += [Text(), *_runtime(result, runtime, width)]
    rest = [
        *_sentences("AGREES", agreement_sentences(result.agreement), width),
        *_sentences("FORMAT", _of_format(result), width),
        *_sentences("GRAPH", _of_graph(result), width),
        *_sentences("NOTE", _notes(result), width),
    ]
    rest += _labelled("WROTE", ", ".join(one_line(name) for name in wrote), width) if wrote else []
    rest += _sentences("NOT CHECKED", _unchecked(result), width)
    return [*lines, Text(), *rest] if rest else lines


def _subject(result: CheckResult) -> str:
    """Return what was checked, on one line."""
    words = [number_of(result.nodes, "node"), f"opset {result.opset}", number_of(len(result.samples), "sample")]
    if batches := batch_sizes(result):
        words.append(f"batch {'/'.join(map(str, batches))}")
    if result.trained and (origins := list(dict.fromkeys(sample.origin for sample in result.samples))):
        words.append(f"inputs: {one_line('; '.join(origins), SENTENCE_LETTERS)}")
    made = f"{name_shown(result.exporter)}/" if result.exporter else ""
    return f"{made}{name_shown(result.model)}   {', '.join(words)}"


def _has_spreads(result: CheckResult) -> bool:
    return any(not output.unjudged for runtime in result.runtimes for output in runtime.outputs)


def _runtime(result: CheckResult, runtime: RuntimeCheck, width: int) -> Iterator[Text]:
    versions = [f"{name} {runtime.facts[name]}" for name in VERSIONS_SHOWN if name in runtime.facts]
    versions += [runtime.facts[name] for name in DETAILS_SHOWN if name in runtime.facts]
    trained = trained_of(result, runtime)
    versions = (
        [name_shown(trained.source), *(text for text in versions if not text.startswith("onnx "))]
        if trained
        else versions
    )
    about = f"{name_shown(runtime.name)}   {one_line(' · '.join(versions), SENTENCE_LETTERS)}".rstrip()
    verdict = {"explained": "explained by rounding", "not explained": "NOT explained by rounding"}
    first, *rest = _wrapped(about, width - 28)
    heading = Text(f"{first}   ", "bold")
    heading.append(verdict.get(runtime.status, runtime.status), STYLES[runtime.status])
    yield heading
    yield from (Text(line) for line in rest)
    if runtime.reason:
        yield from _labelled("", one_line(runtime.reason, SENTENCE_LETTERS), width)
    yield from _outputs(runtime, width)
    if runtime.unsteady:
        yield from _labelled("", f"two calls with equal inputs gave different {_names(runtime.unsteady)}", width, "red")
    if runtime.mutated:
        yield from _labelled("", f"it changed its inputs in place: {_names(runtime.mutated)}", width, "red")
    if trained is not None:
        yield from _sentences("LAYERS", layer_sentences(trained), width)
        yield from _sentences("WEIGHTS", weight_sentences(trained), width)
    yield from _fault(result, runtime, width)
    yield from _noise(runtime, width)
    yield from _sentences("POWER", _power(runtime), width)


def _outputs(runtime: RuntimeCheck, width: int) -> Iterator[Text]:
    worst = worst_outputs(runtime)
    for output in worst[:OUTPUTS_SHOWN]:
        yield from _output(runtime, output, width)
    if len(worst) > OUTPUTS_SHOWN:
        rest = worst[OUTPUTS_SHOWN:]
        bad = sum(not output.explained for output in rest)
        words = f"{bad} of them not explained" if bad else "none of them beyond the limit"
        yield from _labelled("", f"and {number_of(len(rest), 'more output')}, {words}", width)


def _output(runtime: RuntimeCheck, output: OutputCheck, width: int) -> Iterator[Text]:
    words = f"{name_shown(output.name)}   {output_words(output)}"
    if not output.unjudged and not output.reason:
        words += f"   relative error {number_shown(relative_error(output))}"
    alike, rows = decisions(runtime, output.name)
    if rows:
        words += f"   top-1 agrees {alike:,}/{rows:,}"
    style = "" if output.explained else "red"
    yield from (Text(line, style) for line in _wrapped(words, width, "  "))


def _fault(result: CheckResult, runtime: RuntimeCheck, width: int) -> Iterator[Text]:
    fault = runtime.fault
    if fault is None:
        return
    place = [f"level {name_shown(fault.level)}"] if fault.level else []
    place += [f"sample {fault.sample + 1}"] if len(result.samples) > 1 and not fault.words else []
    at = f" ({', '.join(place)})" if place else ""
    yield from _labelled("FIRST", f"{fault_place(fault)}   {fault_sentence(fault)}{at}", width)
    if fault.source:
        yield from _labelled("", f"source line: {one_line(fault.source, SENTENCE_LETTERS)}", width)
    means = BLAME_MEANS.get(fault.blame, "")
    yield from _labelled("BLAME", f"{fault.blame}: {means}" if means else fault.blame, width)
    for sentence in fault.evidence[:EVIDENCE_SHOWN]:
        yield from _labelled("", f"- {one_line(sentence, SENTENCE_LETTERS)}", width)


def _noise(runtime: RuntimeCheck, width: int) -> Iterator[Text]:
    largest = worst_tensor(runtime.levels)
    if runtime.fault is not None or largest is None:
        return
    level, tensor = largest
    where = [name_shown(tensor.op_type), f"level {name_shown(level.name)}" if level.name else ""]
    place = f"{name_shown(tensor.node)} ({', '.join(filter(None, where))})"
    if tensor.explained:
        words = f"the largest error is {number_shown(100 * tensor.ratio)} % of its bound, at {place}"
    else:
        words = f"{place}   {uncounted_words(tensor)}"
    yield from _labelled("NOISE", words, width)


def _power(runtime: RuntimeCheck) -> Iterator[str]:
    """Yield how much was judged, what not and why, and how large a fault must be to be seen everywhere."""
    levels = [power for power in powers(runtime) if power.tensors]
    if levels:
        first, *rest = levels
        at = f" {level_words(first.level)}" if first.level or rest else ""
        words = f"{number_of(first.tensors, 'tensor')} judged{at} (loosest bound {share_shown(first.loosest)})"
        yield ", ".join(
            [
                words,
                *(
                    f"{power.tensors:,} {level_words(power.level).replace('level ', '')} ({share_shown(power.loosest)})"
                    for power in rest
                ),
            ]
        )
        loosest = max(levels, key=lambda power: power.loosest)
        if loosest.loosest > 0:
            where = f" (level {name_shown(loosest.level)})" if loosest.level else ""
            limit = f"a fault below {share_shown(loosest.loosest)} of its largest value"
            yield f"loosest at {name_shown(loosest.loosest_node)}{where}: {limit} may go unseen there"
    for power in powers(runtime):
        if power.blind:
            at = f" at level {name_shown(power.level)}" if power.level else ""
            yield f"{number_of(power.blind, 'tensor')}{at} whose bound is larger than its values, after long segments: nothing is seen there"
    groups = unjudged_nodes(runtime)
    for group in groups[:REASONS_SHOWN]:
        yield f"{number_of(len(group.nodes), 'node')} not judged: {one_line(group.reason, SENTENCE_LETTERS)}: {_names(group.nodes)}"
    if len(groups) > REASONS_SHOWN:
        rest_count = sum(len(group.nodes) for group in groups[REASONS_SHOWN:])
        yield f"{number_of(rest_count, 'node')} not judged for other reasons, all in check.json"


def _of_graph(result: CheckResult) -> Iterator[str]:
    """Yield what the graph alone makes of its outputs."""
    for each in result.graph:
        if each.ill_conditioned:
            yield (
                f"{name_shown(each.output)} is ill-conditioned: rounding alone moves it by {number_shown(each.spread)}, "
                f"and its largest value is {number_shown(each.magnitude)}"
            )
    yield from (one_line(each.overflows, SENTENCE_LETTERS) for each in result.graph if each.overflows)
    yield from tie_sentences(result.ties)


def _of_format(result: CheckResult) -> Iterator[str]:
    """Yield where a graph in low precision loses range or precision."""
    if result.noise is not None:
        yield f"{result.noise.format}, beside {one_line(result.noise.truth, SENTENCE_LETTERS)}:"
        yield from (one_line(sentence, SENTENCE_LETTERS) for sentence in result.noise.summary)


def _notes(result: CheckResult) -> list[str]:
    notes = [*result.notes, *(note for trained in result.trained for note in trained.notes)]
    return [one_line(note, SENTENCE_LETTERS) for note in notes]


def _unchecked(result: CheckResult) -> Iterator[str]:
    for runtime in result.runtimes:
        if runtime.status == "unavailable":
            yield f"{name_shown(runtime.name)}: {one_line(runtime.reason, SENTENCE_LETTERS)}"
        for level in runtime.levels:
            at = f", level {name_shown(level.name)}" if level.name else ""
            layers = f"layers of {name_shown(runtime.name)}{at}, sample {level.sample + 1}"
            if level.failure:
                yield f"{layers}: {one_line(level.failure, SENTENCE_LETTERS)}"
            if level.moved:
                yield f"{layers}, as they run unmarked: marking tensors changed {_names(level.moved)}"
    if result.answered:
        count = number_of(len(result.answered), "node")
        yield f"{count} that cannot be evaluated here (the runtime's answer was taken): {_names(result.answered)}"


def _names(names: Sequence[str]) -> str:
    """Return the first of some foreign names, and how many more there are."""
    return listed([name_shown(name) for name in names], NAMES_SHOWN)


def _sentences(label: str, sentences: Iterable[str], width: int) -> Iterator[Text]:
    """Yield sentences, each once and on its own line, the label before the first."""
    for i, sentence in enumerate(dict.fromkeys(sentences)):
        yield from _labelled(label if i == 0 else "", sentence, width)


def _labelled(label: str, words: str, width: int, style: str = "") -> Iterator[Text]:
    """Yield a line with its label, and those that it is wrapped to under its text."""
    indent = f"{label:<{LABEL}}" if len(label) < LABEL else f"{label}   "
    for i, line in enumerate(_wrapped(words, width, indent)):
        text = Text(line, style)
        if i == 0:
            text.stylize(STYLES.get(label, "bold"), 0, len(label))
        yield text


def _wrapped(words: str, width: int, indent: str = "") -> list[str]:
    """Return text in lines of at most `width` letters, `indent` before the first; words are broken where they alone are longer."""
    lines = textwrap.wrap(
        words,
        max(width, 2 * LABEL),
        initial_indent=indent,
        subsequent_indent=" " * LABEL if indent else "",
        break_on_hyphens=False,
    )
    return lines or [indent]
