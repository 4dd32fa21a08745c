"""The planted faults under what others do: `python -m actconform_faulty.peers [--json] [--into FILE]`.

Each fault's cases run as in `actconform selftest`, on the same inputs, and each call's outputs are compared as others compare,
with the float64 truth rounded to the dtype as their reference: the kindest there is, for others compare with another
implementation. ONNX's limits are tried on ONNX's own data too, so that what inputs and what limits gain shows apart.

A comparison catches a fault if it fails at a call with the fault planted and passes at the same call in the healthy twin:
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

from actconform.compare.metamorphic import RelationChecks
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
from actconform_faulty.node_data import DTYPE, of_graph, of_kernel
from actconform_faulty.peer_limits import PEERS, onnx_holds
from actconform_faulty.planted import PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform import Fault
    from actconform.plugin.loader import Catalog
    from actconform.run.scheduler import Plan
    from actconform.types import Bundle, Case
    from actconform_faulty.node_data import Known

BEGIN, END = "<!-- peers: make selftest-peers -->", "<!-- end of peers -->"
OURS, ONNX_DATA = "actconform", "ONNX's data and limits"
COLUMNS = (ONNX_DATA, *(peer.name for peer in PEERS))

Held = dict[str, list[bool]]  # by column, whether the comparison passed, call by call; none where there is no data


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
    """Return how others' comparisons do on the planted faults, those called `names` or all, beside the selftest's own result.

    Raises UsageError where no fault has one of the names.
    """
    catalog = load_plugins()
    unknown = set(names) - {fault.name for fault in catalog.faults}
    if unknown:
        raise UsageError(f"unknown faults {', '.join(sorted(unknown))}; see actconform selftest --json")
    plan = plan_of(catalog, Config())
    faults = [fault for fault in catalog.faults if not names or fault.name in names]
    trial = selftest(plan, [fault.name for fault in faults], lambda _: None)
    ours = {one.fault for one in trial.detections if one.outcome == "caught"}
    held = _all_held(faults, plan)
    twins = {catalog.registered(case).id: case for case in _cases(faults, catalog)}
    alarms = [alarm.partition(":")[0] for alarm in trial.false_alarms]
    accused = {OURS: alarms} | {
        name: sorted(case for case in twins if case in held and not all(held[case][name])) for name in COLUMNS
    }
    healthy = {OURS: trial.healthy} | {
        name: sum(case in held and bool(held[case][name]) for case in twins) for name in COLUMNS
    }
    return Peers(faults=[_caught(one, held, ours, catalog) for one in faults], accused=accused, healthy=healthy)


def _caught(fault: Fault, held: dict[str, Held], ours: set[str], catalog: Catalog) -> Caught:
    by, whole = ([OURS] if fault.name in ours else [] for _ in range(2))
    pairs = [(held[case.id], held[catalog.registered(case).id]) for case in _cases([fault], catalog) if case.id in held]
    data = any(healthy[ONNX_DATA] for _, healthy in pairs)
    for name in COLUMNS:
        both = [(faulty[name], healthy[name]) for faulty, healthy in pairs]
        # a healthy case may be asked more: ONNX's own graphs, where another fault of its runtime rewrites graphs
        if any(not bad and good for one in both for bad, good in zip(*one, strict=False)):
            by.append(name)
        if any(all(good) and not all(bad) for bad, good in both):
            whole.append(name)
    return Caught(
        fault=fault.name,
        family=fault.family,
        what=fault.what,
        by=tuple(by),
        by_whole_cases=tuple(whole),
        onnx_has_data=data,
    )


def _cases(faults: Sequence[Fault], catalog: Catalog) -> list[Case]:
    known = {case.id: case for case in all_cases(catalog, asked={fault.name for fault in faults})}
    return list({case: known[case] for fault in faults for case in fault.cases}.values())


def _all_held(faults: Sequence[Fault], plan: Plan) -> dict[str, Held]:
    """Return what passed, by case, faulty and healthy; side by side stand the cases that ask the same, so it is drawn once."""
    catalog = plan.catalog
    noticed = {case for fault in faults if not fault.findings for case in fault.cases}
    faulty = _cases(faults, catalog)
    both = {case.id: case for case in [*map(catalog.registered, faulty), *faulty]}
    rewriting = _cases([one for one in faults if _rewrites(one)], catalog)
    rewritten = {one.id for one in (*rewriting, *map(catalog.registered, rewriting))}
    desks = _Desks(plan)
    held: dict[str, Held] = {}
    try:
        for case in sorted(both.values()):
            if case.id not in noticed:
                held[case.id] = _held(case, desks.of(case), graphs=case.id in rewritten)
    finally:
        desks.close()
    for case in faulty:
        if case.id in noticed:
            twin = held[catalog.registered(case).id]
            held[case.id] = {name: [False] * len(calls) for name, calls in twin.items()}
    return held


def _rewrites(fault: Fault) -> bool:
    """Tell whether the fault is a runtime's that rewrites graphs: it shows in any graph of the operator, ONNX's too."""
    planted = PLANTED[fault.name]
    return planted.into == "ort" and planted.on_graph


class _Desks:
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


def _held(case: Case, context: CaseContext, *, graphs: bool) -> Held:
    """Return what passes of one case: at every call that the line makes, and at ONNX's own."""
    subject = context.catalog.subject(case.subject)
    test_vectors = context.vector_cache.generate(subject, case)
    relation_checks = RelationChecks(case.subject, case.aspect, test_vectors)
    try:
        artifact = artifact_for(subject, case, context)
        answers = _answers(job_for(subject, case, test_vectors, relation_checks, artifact), context)
    except (Unsupported, WorkerError, ValueError):  # the last, where the graph lacks the output that is asked for
        answers = []
    held: Held = {name: [] for name in COLUMNS}
    for number, vector in enumerate(test_vectors.vectors):
        with np.errstate(over="ignore"):
            reference = {name: array.astype(vector.dtypes[name]) for name, array in vector.truth.items()}
        for peer in PEERS:
            held[peer.name].append(number < len(answers) and peer.holds(answers[number], reference))
    held[ONNX_DATA] = list(_held_on_nodes(case, context, graphs=graphs))
    return held


def _held_on_nodes(case: Case, context: CaseContext, *, graphs: bool) -> Iterator[bool]:
    """Yield whether each of ONNX's own calls passes: a kernel's at the operator's data, a runtime's at the operators' graphs."""
    subject = context.catalog.subject(case.subject)
    if case.aspect == "gradient":
        return
    if isinstance(subject, Model):
        for one in of_graph(subject) if graphs else ():
            yield _passes(Job(case, one.graph, [one.known.call]), [one.known], context)[0]
        return
    known = of_kernel(subject)
    if known:
        at = msgspec.structs.replace(case, dtype=DTYPE)
        try:
            artifact = artifact_for(subject, at, context)
        except (Unsupported, WorkerError):
            yield from [False] * len(known)
            return
        yield from _passes(Job(at, artifact, [one.call for one in known]), known, context)


def _passes(job: Job, known: Sequence[Known], context: CaseContext) -> list[bool]:
    answers = _answers(job, context)
    return [
        number < len(answers) and onnx_holds(answers[number], one.reference, one.rtol, one.atol)
        for number, one in enumerate(known)
    ]


def _answers(job: Job, context: CaseContext) -> list[Bundle]:
    """Return the answers up to the call that raised or killed the process; a hang ends after the selftest's time."""
    try:
        return list(context.worker.run(job, context.timeout).outputs)
    except WorkerError:
        return []


def table(found: Peers) -> str:
    """Return a Markdown table of families by comparisons: how many faults are caught, and how many healthy cases accused."""
    families = dict.fromkeys(one.family for one in found.faults)
    names = (OURS, *COLUMNS)
    head = ("family", "faults", OURS, ONNX_DATA, *(f"{peer.name}, our inputs" for peer in PEERS))
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows += [_row(family, [one for one in found.faults if one.family == family]) for family in families]
    rows.append(_row("all", found.faults))
    whole = [str(sum(name in one.by_whole_cases for one in found.faults)) for name in names]
    rows.append(f"| all, by whole cases | {len(found.faults)} | {' | '.join(whole)} |")
    accused = [f"{len(found.accused[name])} of {found.healthy[name]}" for name in names]
    rows.append(f"| healthy cases accused |  | {' | '.join(accused)} |")
    return "\n".join(rows)


def _row(title: str, faults: Sequence[Caught]) -> str:
    counts = (str(sum(name in one.by for one in faults)) for name in (OURS, *COLUMNS))
    return f"| {title} | {len(faults)} | {' | '.join(counts)} |"


def note(found: Peers) -> str:
    """Return the sentence under the table, without which its numbers would mislead."""
    data = sum(one.onnx_has_data for one in found.faults)
    return (
        f"A comparison catches a fault if it fails at a call where the healthy backend passes; by whole cases, if the healthy "
        f"backend passes at every call of the case. It accuses a healthy case if it fails at any call. The reference is the "
        f"float64 truth, rounded. ONNX has data for {data} of the {len(found.faults)} faults. Crashes, hangs and exceptions "
        f"count as noticed by whoever makes the call; {OURS}'s own count wants the right class and the right blame too, and it alone knows the registered deviations."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or everything as JSON; 0, or 2 where what was asked for cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m actconform_faulty.peers", description="Planted faults under peers."
    )
    parser.add_argument("faults", nargs="*", help="names of faults (default: all)")
    parser.add_argument("--json", action="store_true", help="print who catches each fault, as JSON")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the table into FILE between its two marks")
    options = parser.parse_args(arguments)
    try:
        if options.into is not None:
            expect_marks(options.into, BEGIN, END)
        found = peers(options.faults)
        said = f"{table(found)}\n\n{note(found)}"
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() if options.json else said)
        if options.into is not None:
            write_between(options.into, BEGIN, END, said)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
