"""What rounding does not explain in the checks of a model, as differences that two checks can have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actconform.report.across_runs.diff import MOVED
from actconform.report.check.check_json import read_json
from actconform.report.check.exports import EXPORTS, ExportCheck, ExportsResult, read_exports
from actconform.report.check.summary import BLAME_MEANS, fault_place, fault_sentence, output_words, worst_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from actconform.checking.result import RuntimeCheck

ANSWERED = ("explained", "not explained")


class CheckDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime, or an exporter, did with the model that is not explained: `key` is equal in two checks that show the same.

    `size` is in spreads, or 0 where it has none. `refusal` is of an exporter that takes no such model, which is no difference by itself.
    """

    where: str
    key: tuple[str, ...]
    words: str
    size: float = 0.0
    refusal: bool = False

    def grew_from(self, before: CheckDifference) -> bool:
        """Tell whether it is larger than before by more than the factor by which `actconform diff` calls an error another."""
        return self.size > MOVED * before.size or (math.isinf(self.size) and not math.isinf(before.size))


def read_checks(folder: Path) -> ExportsResult:
    """Return what `actconform check --out FOLDER` wrote: every export of a trained model, or the check of a file as if it were one.

    Raises UsageError where there is neither, or it cannot be read.
    """
    if (folder / EXPORTS).exists():
        return read_exports(folder)
    result = read_json(folder)
    return ExportsResult(source=result.model, exports=[ExportCheck(result=result)])


def check_differences(checks: ExportsResult) -> list[CheckDifference]:
    """Return all differences, in the order of exports and runtimes."""
    return [difference for export in checks.exports for difference in _of_export(export)]


def lost_answers(before: ExportsResult, after: ExportsResult) -> list[str]:
    """Return the runtimes that answered before and are not part of the later check, nor of those whose export failed there."""
    failed = {export.exporter for export in after.exports if export.result is None}
    now = {place for place, _, _ in _columns(after)}
    return [
        place
        for place, exporter, runtime in _columns(before)
        if runtime.status in ANSWERED and place not in now and exporter not in failed
    ]


def _columns(checks: ExportsResult) -> Iterator[tuple[str, str, RuntimeCheck]]:
    for export in checks.exports:
        for runtime in export.result.runtimes if export.result else ():
            yield _place(export.exporter, runtime.name), export.exporter, runtime


def _place(exporter: str, runtime: str) -> str:
    return f"{exporter}+{runtime}" if exporter else runtime


def _of_export(export: ExportCheck) -> Iterator[CheckDifference]:
    if export.result is None:
        words = f"no graph: {export.failure}"
        yield CheckDifference(where=export.exporter, key=(export.exporter, "no graph"), words=words, refusal=True)
        return
    for runtime in export.result.runtimes:
        yield from _of_runtime(_place(export.exporter, runtime.name), runtime)


def _of_runtime(where: str, runtime: RuntimeCheck) -> Iterator[CheckDifference]:
    if runtime.status not in ANSWERED and runtime.fault is None:
        words = f"{runtime.status}: {runtime.reason}"
        yield CheckDifference(where=where, key=(where, runtime.status), words=words)
        return
    if runtime.fault is not None:
        fault = runtime.fault
        words = f"{fault_place(fault)}: {fault_sentence(fault)}; blame: {BLAME_MEANS[fault.blame]}"
        place = (where, "fault", fault.blame, fault.node, fault.op_type)
        yield CheckDifference(where=where, key=place, words=words)
    for output in worst_outputs(runtime):
        if not output.explained:
            words = f"output {output.name}: {output_words(output)}"
            key = (where, "output", output.name)
            yield CheckDifference(where=where, key=key, words=words, size=output.spreads)
    for kind, names in (("changes its input", runtime.mutated), ("gives another answer each time", runtime.unsteady)):
        for name in names if runtime.status == "not explained" else ():
            yield CheckDifference(where=where, key=(where, kind, name), words=f"{kind}: {name}")
