"""The detector on trial: every injected fault must be found, named and blamed, and every healthy twin, and what is healthy but unusual, left alone."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.errors import GoldenError, UsageError
from actconform.run.scheduler import run
from actconform.run.select import all_cases
from actconform.testdata.golden.store import MANIFEST, digest, read_manifest, strangers
from actconform.testdata.golden.verify import verify_subjects
from actconform.types import BAD, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.run.scheduler import Plan
    from actconform.types import Kernel, Result
    from actconform.types.fault import Fault

NO_FAULTS = "no fault is installed: pip install actconform-faulty"
HANG_SECONDS = 15.0  # after which an injected hang is one; all else has the time that the settings give
GOLDEN_SUBJECT = "tanh"  # whose goldens the faults of goldens are injected in


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one fault, and what was said of it: "caught", "wrong blame", "wrong class" or "missed", or "timeout" where
    a case ran out of time before anything could be found.
    """

    fault: str
    family: str
    what: str
    outcome: str
    wanted: str
    seen: tuple[str, ...] = ()


class DetectionReport(msgspec.Struct, frozen=True, kw_only=True):
    """All detections, the healthy cases that were accused, those that ran out of time, and how many there were.

    `unusual` are the healthy ones that compute otherwise than the backends that a fault is injected into, and what each does.
    """

    detections: list[Detection]
    false_alarms: list[str]
    healthy: int
    seconds: float
    timeouts: list[str] = []
    unusual: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """Why the detector does not stand the trial; empty where it does."""
        wrong = [detection for detection in self.detections if detection.outcome != "caught"]
        problems = [
            f"{detection.fault}: {detection.outcome}; wanted {detection.wanted}, seen {', '.join(detection.seen) or 'nothing'}"
            for detection in wrong
        ]
        problems += [f"false alarm: {alarm}" for alarm in self.false_alarms]
        return problems + [
            f"ran out of time: {case}; give it more: timeout in actconform.toml" for case in self.timeouts
        ]


def selftest(plan: Plan, names: Sequence[str], on_result: Callable[[Result], None]) -> DetectionReport:
    """Return how the detector does on the installed faults, those called `names` or all; the plan's cases do not matter.

    All deviations of the plan's register are active, for the faulty as for the healthy. Raises UsageError where no fault is
    installed, or one names a case that there is not.
    """
    started = time.perf_counter()
    faults = [fault for fault in plan.catalog.faults if not names or fault.name in names]
    if not faults:
        raise UsageError(NO_FAULTS)
    cases_by_id = {case.id: case for case in all_cases(plan.catalog, selected={fault.name for fault in faults})}
    for fault in faults:
        for case in fault.cases:
            if case not in cases_by_id:
                raise UsageError(f"fault {fault.name} names the case {case}, which there is not")
    faulty = [cases_by_id[case] for fault in faults for case in fault.cases]
    unusual = [cases_by_id[case] for fault in faults if fault.healthy for case in fault.cases]
    twins = [*map(plan.catalog.registered, faulty), *unusual]
    healthy = list({twin.id: twin for twin in twins}.values())
    results: dict[str, Result] = {}

    def keep(result: Result) -> None:
        results[result.case] = result
        on_result(result)

    hanging = {case for fault in faults if fault.verdict == Verdict.TIMEOUT for case in fault.cases}
    cases = [*dict.fromkeys(healthy + faulty)]
    short = msgspec.structs.replace(plan.config, timeout=min(plan.config.timeout, HANG_SECONDS))
    for config, selected in (
        (plan.config, [case for case in cases if case.id not in hanging]),
        (short, [case for case in cases if case.id in hanging]),
    ):
        run(msgspec.structs.replace(plan, cases=selected, config=config, earlier=None), lambda *_: None, keep)
    bad = [results[twin.id] for twin in healthy if results[twin.id].verdict in BAD]
    alarms = [result for result in bad if result.verdict != Verdict.TIMEOUT]
    detections = [_detection(fault, results) for fault in faults if not fault.healthy]
    if not names:
        detections += _of_goldens(plan.catalog.kernels[GOLDEN_SUBJECT], plan.folder)
    return DetectionReport(
        detections=detections,
        false_alarms=[f"{alarm.case}: {alarm.verdict}, {alarm.reason}" for alarm in alarms],
        timeouts=[result.case for result in bad if result.verdict == Verdict.TIMEOUT],
        healthy=len(healthy),
        unusual={fault.name: fault.what for fault in faults if fault.healthy},
        seconds=time.perf_counter() - started,
    )


def _detection(fault: Fault, results: Mapping[str, Result]) -> Detection:
    results_of_fault = [results[case] for case in fault.cases]
    new = [finding for result in results_of_fault for finding in result.findings if finding.deviation is None]
    at = [finding for finding in new if not fault.tensor or finding.tensor == fault.tensor]
    named = [finding for finding in at if finding.class_ in fault.findings]
    if fault.findings:
        wanted = f"{' or '.join(fault.findings)} blamed on {' or '.join(fault.blames)}"
        wanted += f" at {fault.tensor}" if fault.tensor else ""
        blamed = any(finding.blame in fault.blames for finding in named)
        outcome = "caught" if blamed else "wrong blame" if named else "wrong class" if new else "missed"
    else:
        wanted = fault.verdict
        ended = [result.verdict for result in results_of_fault]
        outcome = "caught" if Verdict(fault.verdict) in ended else "wrong class" if set(ended) & set(BAD) else "missed"
    if outcome != "caught" and not named and any(result.verdict == Verdict.TIMEOUT for result in results_of_fault):
        outcome = "timeout"
    shown = {f"{finding.class_} ({finding.blame})" for finding in new}
    shown |= {str(result.verdict) for result in results_of_fault if not result.findings}
    return Detection(
        fault=fault.name,
        family=fault.family,
        what=fault.what,
        outcome=outcome,
        wanted=wanted,
        seen=tuple(sorted(shown)),
    )


def _of_goldens(kernel: Kernel, folder: Path) -> list[Detection]:
    """Return what `golden verify` says of four faults, each injected in a copy of one subject's goldens."""
    detections = []
    for name, (description, inject) in GOLDEN_FAULTS.items():
        with tempfile.TemporaryDirectory(prefix="actconform-") as place:
            copy = _copied(kernel, folder, Path(place))
            file = inject(copy, kernel)
            problems = _golden_problems(kernel, copy)
        caught = any(file in message for message in problems)
        outcome = "caught" if caught else "wrong class" if problems else "missed"
        detections.append(
            Detection(
                fault=f"goldens@{name}",
                family="goldens",
                what=description,
                outcome=outcome,
                wanted=f"an error that names {file}",
                seen=tuple(problems),
            )
        )
    return detections


def _copied(kernel: Kernel, folder: Path, place: Path) -> Path:
    manifest = read_manifest(folder)
    files_of_subject = {name: entry for name, entry in manifest.files.items() if name.startswith(f"{kernel.name}/")}
    shutil.copytree(folder / kernel.name, place / kernel.name)
    alone = msgspec.structs.replace(
        manifest, files=files_of_subject, subjects={kernel.name: manifest.subjects[kernel.name]}
    )
    (place / MANIFEST).write_bytes(msgspec.json.encode(alone))
    return place


def _golden_problems(kernel: Kernel, folder: Path) -> list[str]:
    manifest = read_manifest(folder)
    try:
        verify_subjects(folder, manifest, [kernel])
    except GoldenError as error:
        return [str(error)]
    return strangers(folder, manifest)


def _flip_a_bit(folder: Path, kernel: Kernel) -> str:
    path = folder / kernel.name / "y.npy"
    blob = bytearray(path.read_bytes())
    blob[-100] ^= 1
    path.write_bytes(blob)
    return "y.npy"


def _stale_manifest(folder: Path, kernel: Kernel) -> str:
    path = folder / kernel.name / "d_x.npy"
    np.save(path, np.load(path) * 2.0)
    return "d_x.npy"


def _extra_file(folder: Path, kernel: Kernel) -> str:
    np.save(folder / kernel.name / "z.npy", np.zeros(1))
    return "z.npy"


def _nan(folder: Path, kernel: Kernel) -> str:
    """A golden that is wrong, and whose manifest says so too: only the formulas know better."""
    path = folder / kernel.name / "y.npy"
    array = np.load(path)
    array[7] = np.nan
    np.save(path, array)
    manifest = read_manifest(folder)
    name = f"{kernel.name}/y.npy"
    entry = msgspec.structs.replace(manifest.files[name], sha256=digest(array))
    changed = msgspec.structs.replace(manifest, files={**manifest.files, name: entry})
    (folder / MANIFEST).write_bytes(msgspec.json.encode(changed))
    return kernel.name


GOLDEN_FAULTS: dict[str, tuple[str, Callable[[Path, Kernel], str]]] = {
    "flipped-bit": ("one bit of a golden is flipped", _flip_a_bit),
    "stale-manifest": ("a golden was written anew, its manifest was not", _stale_manifest),
    "extra-file": ("a file that the manifest does not list", _extra_file),
    "nan": ("a golden holds NaN, and the manifest agrees", _nan),
}
