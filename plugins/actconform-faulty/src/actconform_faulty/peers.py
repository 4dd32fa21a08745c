"""The injected faults under what others do: `python -m actconform_faulty.peers [--json] [--into FILE]`.

Each fault's cases run as in `actconform selftest`, on the same inputs, and each call's outputs are compared as others compare,
with the float64 truth rounded to the dtype as their reference: the kindest there is, for others compare with another
implementation. ONNX's limits are tried on ONNX's own data too, so that what inputs and what limits gain shows apart.

A comparison catches a fault if it fails at a call with the fault injected and passes at the same call in the healthy twin:
others register no known deviations (of which many a healthy case here has one), so where the healthy backend fails as well, nobody learns anything. It accuses a healthy
case if it fails at any of its calls. Stricter, as others' suites report: "by whole cases" counts a fault only if all calls of
the healthy case pass. A call that raises, or a process that dies, is noticed by whoever made the call; faults that can show
in no other way are not run but counted as caught by all who have data for them. Comparisons see answers alone: no inputs
that changed, no second answer to the same call, no layers within a model. Faults of goldens concern nobody else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.comparison.metamorphic import RelationChecks
from actconform.errors import Unsupported, UsageError, WorkerError
from actconform.plugin.loader import load_plugins
from actconform.report.marked_section import expect_marks, write_between
from actconform.run.case import CaseContext, VectorCache, artifact_for, job_for
from actconform.run.export_cache import Exports, cache_folder
from actconform.run.scheduler import plan_of
from actconform.run.select import all_cases
from actconform.selftest import selftest
from actconform.settings import Config
from actconform.types import DRIVER_EXPORTER
from actconform.types.model import Model
from actconform.workers.client import Worker
from actconform.workers.protocol import Job
from actconform_faulty.injected import INJECTED
from actconform_faulty.node_data import DTYPE, of_graph, of_kernel
from actconform_faulty.peer_limits import PEERS, onnx_holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform import Fault
    from actconform.plugin.loader import Catalog
    from actconform.run.scheduler import Plan
    from actconform.types import Bundle, Case
    from actconform_faulty.node_data import NodeVector

BEGIN, END = "<!-- peers: make selftest-peers -->", "<!-- end of peers -->"
OURS, ONNX_DATA = "actconform", "ONNX's data and limits"
COLUMNS = (ONNX_DATA, *(peer.name for peer in PEERS))

Passes = dict[str, list[bool]]  # by column, whether the comparison passed, call by call; none where there is no data


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """Who catches one fault, call by call (`by`) and by whole cases (`by_whole_cases`), and whether ONNX has data for it."""

    fault: str
    family: str
    what: str
    by: tuple[str, ...]
    by_whole_cases: tuple[str, ...]
    onnx_has_data: bool


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody catches, and the healthy cases that everybody accuses, of how many there were."""

    faults: list[Caught]
    accused: dict[str, list[str]]
    healthy: dict[str, int]


def peers(names: Sequence[str] = ()) -> Peers:
    """Return how others' comparisons do on the injected faults, those called `names` or all, beside the selftest's own result.

    Raises UsageError where no fault has one of the names.
    """
    catalog = load_plugins()
    unknown = set(names) - {fault.name for fault in catalog.faults}
    if unknown:
        raise UsageError(f"unknown faults {', '.join(sorted(unknown))}; see actconform selftest --json")
    plan = plan_of(catalog, Config())
    faults = [fault for fault in catalog.faults if not fault.healthy and (not names or fault.name in names)]
    trial = selftest(plan, [fault.name for fault in faults], lambda _: None)
    ours = {detection.fault for detection in trial.detections if detection.outcome == "caught"}
    passes = _all_passes(faults, plan)
    twins = {catalog.registered(case).id: case for case in _cases(faults, catalog)}
    alarms = [alarm.partition(":")[0] for alarm in trial.false_alarms]
    accused = {OURS: alarms} | {
        name: sorted(case for case in twins if case in passes and not all(passes[case][name])) for name in COLUMNS
    }
    healthy = {OURS: trial.healthy} | {
        name: sum(case in passes and bool(passes[case][name]) for case in twins) for name in COLUMNS
    }
    return Peers(
        faults=[_caught(detection, passes, ours, catalog) for detection in faults], accused=accused, healthy=healthy
    )


def _caught(fault: Fault, passes: dict[str, Passes], ours: set[str], catalog: Catalog) -> Caught:
    by, by_whole_cases = ([OURS] if fault.name in ours else [] for _ in range(2))
    pairs = [
        (passes[case.id], passes[catalog.registered(case).id]) for case in _cases([fault], catalog) if case.id in passes
    ]
    data = any(healthy[ONNX_DATA] for _, healthy in pairs)
    for name in COLUMNS:
        both = [(faulty[name], healthy[name]) for faulty, healthy in pairs]
        # a healthy case may be asked more: ONNX's own graphs, where another fault of its runtime rewrites graphs
        if any(not bad and good for case_pair in both for bad, good in zip(*case_pair, strict=False)):
            by.append(name)
        if any(all(good) and not all(bad) for bad, good in both):
            by_whole_cases.append(name)
    return Caught(
        fault=fault.name,
        family=fault.family,
        what=fault.what,
        by=tuple(by),
        by_whole_cases=tuple(by_whole_cases),
        onnx_has_data=data,
    )


def _cases(faults: Sequence[Fault], catalog: Catalog) -> list[Case]:
    cases_by_id = {case.id: case for case in all_cases(catalog, selected={fault.name for fault in faults})}
    return list({case: cases_by_id[case] for fault in faults for case in fault.cases}.values())


def _all_passes(faults: Sequence[Fault], plan: Plan) -> dict[str, Passes]:
    """Return what passed, by case, faulty and healthy; side by side stand the cases that ask the same, so it is drawn once."""
    catalog = plan.catalog
    noticed = {case for fault in faults if not fault.findings for case in fault.cases}
    faulty = _cases(faults, catalog)
    both = {case.id: case for case in [*map(catalog.registered, faulty), *faulty]}
    rewriting = _cases([one for one in faults if _rewrites(one)], catalog)
    rewritten = {one.id for one in (*rewriting, *map(catalog.registered, rewriting))}
    contexts = _Contexts(plan)
    passes: dict[str, Passes] = {}
    try:
        for case in sorted(both.values()):
            if case.id not in noticed:
                passes[case.id] = _passes_of(case, contexts.of(case), graphs=case.id in rewritten)
    finally:
        contexts.close()
    for case in faulty:
        if case.id in noticed:
            twin = passes[catalog.registered(case).id]
            passes[case.id] = {name: [False] * len(calls) for name, calls in twin.items()}
    return passes


def _rewrites(fault: Fault) -> bool:
    """Tell whether the fault is a runtime's that rewrites graphs: it shows in any graph of the operator, ONNX's too."""
    injected = INJECTED[fault.name]
    return injected.into == "ort" and injected.on_graph


class _Contexts:
    """What a line works with, for each pair of backend and exporter, made when it is first asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._vector_cache = VectorCache(plan.folder, plan.manifest)
        self._workers: dict[str, Worker] = {}

    def of(self, case: Case) -> CaseContext:
        exports = None
        if case.exporter not in (None, DRIVER_EXPORTER):
            source = self._plan.catalog.exporters[str(case.exporter).partition("@")[0]].source
            exports = Exports(self._worker(source), cache_folder())
        catalog, register = self._plan.catalog, self._plan.register
        return CaseContext(
            catalog, register, self._plan.config.timeout, self._vector_cache, self._worker(case.worker), exports, {}
        )

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def _worker(self, backend: str) -> Worker:
        return self._workers.setdefault(backend, Worker(backend))


def _passes_of(case: Case, context: CaseContext, *, graphs: bool) -> Passes:
    """Return what passes of one case: at every call that the line makes, and at ONNX's own."""
    subject = context.catalog.subject(case.subject)
    test_vectors = context.vector_cache.generate(subject, case)
    relation_checks = RelationChecks(case.subject, case.aspect, test_vectors)
    try:
        artifact = artifact_for(subject, case, context)
        answers = _answers(job_for(subject, case, test_vectors, relation_checks, artifact), context)
    except (Unsupported, WorkerError, ValueError):  # the last, where the graph lacks the output that is asked for
        answers = []
    passes: Passes = {name: [] for name in COLUMNS}
    for number, vector in enumerate(test_vectors.vectors):
        with np.errstate(over="ignore"):
            reference = {name: array.astype(vector.dtypes[name]) for name, array in vector.truth.items()}
        for peer in PEERS:
            passes[peer.name].append(number < len(answers) and peer.holds(answers[number], reference))
    passes[ONNX_DATA] = list(_passes_on_nodes(case, context, graphs=graphs))
    return passes


def _passes_on_nodes(case: Case, context: CaseContext, *, graphs: bool) -> Iterator[bool]:
    """Yield whether each of ONNX's own calls passes: a kernel's at the operator's data, a runtime's at the operators' graphs."""
    subject = context.catalog.subject(case.subject)
    if case.aspect == "gradient":
        return
    if isinstance(subject, Model):
        for node_vector in of_graph(subject) if graphs else ():
            yield _passes(Job(case, node_vector.graph, [node_vector.vector.call]), [node_vector.vector], context)[0]
        return
    vectors = of_kernel(subject)
    if vectors:
        at = msgspec.structs.replace(case, dtype=DTYPE)
        try:
            artifact = artifact_for(subject, at, context)
        except (Unsupported, WorkerError):
            yield from [False] * len(vectors)
            return
        yield from _passes(Job(at, artifact, [node_vector.call for node_vector in vectors]), vectors, context)


def _passes(job: Job, vectors: Sequence[NodeVector], context: CaseContext) -> list[bool]:
    answers = _answers(job, context)
    return [
        number < len(answers) and onnx_holds(answers[number], vector.reference, vector.rtol, vector.atol)
        for number, vector in enumerate(vectors)
    ]


def _answers(job: Job, context: CaseContext) -> list[Bundle]:
    """Return the answers up to the call that raised or killed the process; a hang ends after the selftest's time."""
    try:
        return list(context.worker.run(job, context.timeout).outputs)
    except WorkerError:
        return []


def table(peers_result: Peers) -> str:
    """Return a Markdown table of families by comparisons: how many faults are caught, and how many healthy cases accused."""
    families = dict.fromkeys(fault.family for fault in peers_result.faults)
    names = (OURS, *COLUMNS)
    head = ("family", "faults", OURS, ONNX_DATA, *(f"{peer.name}, our inputs" for peer in PEERS))
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows += [_row(family, [fault for fault in peers_result.faults if fault.family == family]) for family in families]
    rows.append(_row("all", peers_result.faults))
    by_whole_cases = [str(sum(name in fault.by_whole_cases for fault in peers_result.faults)) for name in names]
    rows.append(f"| all, by whole cases | {len(peers_result.faults)} | {' | '.join(by_whole_cases)} |")
    accused = [f"{len(peers_result.accused[name])} of {peers_result.healthy[name]}" for name in names]
    rows.append(f"| healthy cases accused |  | {' | '.join(accused)} |")
    return "\n".join(rows)


def _row(title: str, faults: Sequence[Caught]) -> str:
    counts = (str(sum(name in fault.by for fault in faults)) for name in (OURS, *COLUMNS))
    return f"| {title} | {len(faults)} | {' | '.join(counts)} |"


def note(peers_result: Peers) -> str:
    """Return the sentence under the table, without which its numbers would mislead."""
    data = sum(fault.onnx_has_data for fault in peers_result.faults)
    return (
        f"A comparison catches a fault if it fails at a call where the healthy backend passes; by whole cases, if the healthy "
        f"backend passes at every call of the case. It accuses a healthy case if it fails at any call. The reference is the "
        f"float64 truth, rounded. ONNX has data for {data} of the {len(peers_result.faults)} faults. Crashes, hangs and exceptions "
        f"count as caught by every tool that makes the call. {OURS}'s own count also requires the right class and blame, and only {OURS} knows the "
        "registered deviations."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or everything as JSON; 0, or 2 where what was asked for cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m actconform_faulty.peers", description="Injected faults under peers."
    )
    parser.add_argument("faults", nargs="*", help="names of faults (default: all)")
    parser.add_argument("--json", action="store_true", help="print who catches each fault, as JSON")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the table into FILE between its two marks")
    options = parser.parse_args(arguments)
    try:
        if options.into is not None:
            expect_marks(options.into, BEGIN, END)
        result = peers(options.faults)
        text = f"{table(result)}\n\n{note(result)}"
        print(msgspec.json.format(msgspec.json.encode(result), indent=1).decode() if options.json else text)
        if options.into is not None:
            write_between(options.into, BEGIN, END, text)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
