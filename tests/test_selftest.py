"""The detector on trial, and the trial itself: with one part of the detector blinded, the selftest must go red.

The faults are those of actconform-faulty, injected into real frameworks in real workers; what is blinded compares and judges
in this process. The workers live as long as this module, because most of a short trial would be importing torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pytest

import actconform.run.case
import actconform.run.scheduler
import actconform.run.subject
import actconform.testdata.kernel_vectors
from actconform import selftest
from actconform.comparison import comparator
from actconform.elements import classify, elementwise
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.run.scheduler import Plan, plan_of
from actconform.selftest import DetectionReport
from actconform.settings import Config
from actconform.testdata.golden import store, verify
from actconform.tolerance import limits
from actconform.types import BAD, Finding, Interval, Result, Verdict
from actconform.types.fault import Fault
from actconform.verdict.causes.explain import Coverage, Explanation
from actconform.workers.client import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from actconform.elements.elementwise import ErrorStatistics, Sample
    from actconform.testdata.kernel_vectors import TestVectors

    Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(load_plugins(), Config())


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[str, Worker]]:
    workers: dict[str, Worker] = {}
    yield workers
    for worker in workers.values():
        Worker.close(worker)


@pytest.fixture
def trial(plan: Plan, kept: dict[str, Worker], monkeypatch: Patch) -> Callable[..., DetectionReport]:
    """Run the selftest on these faults, in workers that are left running."""

    class Lasting(Worker):
        def close(self) -> None:
            """Stay for the next trial."""

    def worker(_: Plan, backend: str) -> Worker:
        return kept.setdefault(backend, Lasting(backend))

    monkeypatch.setattr(actconform.run.scheduler, "worker_for", worker)
    return lambda *names: selftest.selftest(plan, names, lambda _: None)


def outcomes(trial: DetectionReport) -> dict[str, str]:
    return {one.fault: one.outcome for one in trial.detections}


# --- one part of the detector blinded at a time -------------------------------------------------------------------------


def ulp_always_zero(patch: Patch) -> None:
    for module in (elementwise, classify):
        patch.setattr(module, "ulp_of", lambda truth, fmt: np.full(truth.shape, np.inf))


def scaled_error_always_zero(patch: Patch) -> None:
    for module in (elementwise, classify):
        patch.setattr(module, "units", lambda block, tolerance, ulps: (np.full(block.truth.shape, np.inf), np.zeros(1)))


def nan_compare_off(patch: Patch) -> None:
    real = comparator.elementwise_errors

    def blind(sample: Sample, tolerance: limits.Tolerance) -> ErrorStatistics:
        errors = real(sample, tolerance)
        nan = np.isnan(sample.truth) | np.isnan(sample.got.astype(np.float64))
        errors.suspects = errors.suspects[~nan[errors.suspects]]
        return errors

    patch.setattr(comparator, "elementwise_errors", blind)


def signs_of_zero_off(patch: Patch) -> None:
    real = actconform.testdata.kernel_vectors.unary_tolerance
    patch.setattr(
        actconform.testdata.kernel_vectors,
        "unary_tolerance",
        lambda *a: msgspec.structs.replace(real(*a), zero_sign=False),
    )


def tail_tier_off(patch: Patch) -> None:
    patch.setattr(limits.Tolerance, "tail", property(lambda _: False))


def kinks_accept_all(patch: Patch) -> None:
    real = classify._classes
    patch.setattr(classify, "_classes", lambda s, tolerance: (one for one in real(s, tolerance) if one[0] != "kink"))


def mean_error_off(patch: Patch) -> None:
    for search in ("locate_bias", "unreached_ends"):
        patch.setattr(comparator, search, lambda *_: ())


def causes_cover_everything(patch: Patch) -> None:
    def everything(_: Any, __: Any, ___: Any, findings: Sequence[Finding], ____: Any) -> Explanation:
        return Explanation({finding.place: Coverage("all", "", 0.0, "") for finding in findings}, [])

    patch.setattr(actconform.run.subject.KernelSubject, "explain", everything)


def zip_on_outputs(patch: Patch) -> None:
    """Pair outputs with truths by position, as far as the shorter goes."""
    real = comparator.comparison

    def zipped(test_vectors: TestVectors, given: Sequence[Any]) -> Any:
        vectors, found = [], []
        for vector, answer in zip(test_vectors.vectors, given, strict=True):
            pairs = list(zip(vector.truth.items(), answer.values(), strict=False))
            vectors.append(msgspec.structs.replace(vector, truth=dict(truth for truth, _ in pairs)))
            found.append({name: array for (name, _), array in pairs})
        return real(msgspec.structs.replace(test_vectors, vectors=vectors), found)

    patch.setattr(actconform.run.case, "comparison", zipped)


def dtypes_unchecked(patch: Patch) -> None:
    real = comparator._structure
    patch.setattr(comparator, "_structure", lambda q, a: (one for one in real(q, a) if one[0] != "dtype"))


def exhaustive_set_empty(patch: Patch) -> None:
    real = actconform.run.subject.generate

    def without(*arguments: Any) -> TestVectors:
        test_vectors = real(*arguments)
        asked = [vector for vector in test_vectors.vectors if vector.regime != "exhaustive"]
        assert len(asked) < len(test_vectors.vectors)
        return msgspec.structs.replace(test_vectors, vectors=asked)

    patch.setattr(actconform.run.subject, "generate", without)


def one_length_of_arrays(patch: Patch) -> None:
    patch.setattr(comparator, "_position", lambda *_: ())


def behaviour_unwatched(patch: Patch) -> None:
    patch.setattr(actconform.run.case, "behaviour", lambda *_: [])


def layers_unseen(patch: Patch) -> None:
    patch.setattr(actconform.run.subject, "layerwise", lambda *_, **__: ([], []))


def nobody_blamed(patch: Patch) -> None:
    patch.setattr(actconform.run.case, "blame", lambda finding, *_: finding)


def graphs_not_inspected(patch: Patch) -> None:
    for kind in (actconform.run.subject.KernelSubject, actconform.run.subject.ModelSubject):
        patch.setattr(kind, "gates", lambda *_: [])


def crashes_excused(patch: Patch) -> None:
    patch.setitem(actconform.run.case.VERDICT_OF, "crash", Verdict.UNAVAILABLE)


class Blinding(NamedTuple):
    blind: Callable[[Patch], None]
    fault: str
    outcome: str


# what a blind limit misses, the formulas see: as findings of class `formula`
BLINDED = [
    Blinding(ulp_always_zero, "faulty-torch@relu-one-ulp", "wrong class"),
    Blinding(scaled_error_always_zero, "faulty-torch@sigmoid-nine-units", "wrong class"),
    Blinding(nan_compare_off, "faulty-torch@relu-nan-to-zero", "wrong class"),
    Blinding(signs_of_zero_off, "faulty-torch@tanh-zero-to-plus", "missed"),
    Blinding(tail_tier_off, "faulty-torch@elu-exp-less-one", "wrong class"),
    Blinding(kinks_accept_all, "faulty-torch@relu-kink", "wrong class"),
    Blinding(mean_error_off, "faulty-torch@sigmoid-bias", "wrong class"),
    Blinding(causes_cover_everything, "faulty-torch@relu-one-ulp", "missed"),
    Blinding(zip_on_outputs, "faulty-torch@extra-output", "missed"),
    Blinding(zip_on_outputs, "faulty-torch@output-renamed", "wrong class"),
    Blinding(dtypes_unchecked, "faulty-torch@output-f64", "missed"),
    Blinding(exhaustive_set_empty, "faulty-torch@relu-one-pattern", "missed"),
    Blinding(one_length_of_arrays, "faulty-torch@relu-tail-loses-nan", "wrong class"),
    Blinding(behaviour_unwatched, "faulty-torch@input-written", "missed"),
    Blinding(layers_unseen, "faulty-torch@bias-forgotten", "wrong class"),
    Blinding(nobody_blamed, "faulty-torch@relu-one-ulp", "wrong blame"),
    Blinding(graphs_not_inspected, "faulty-export@batch-fixed", "missed"),
    Blinding(crashes_excused, "faulty-torch@segfault", "missed"),
]


def test_with_open_eyes_each_of_these_faults_is_caught(trial: Callable[..., DetectionReport]) -> None:
    faults = {blinding.fault for blinding in BLINDED}
    done = trial(*faults)
    assert outcomes(done) == dict.fromkeys(faults, "caught")
    assert done.false_alarms == []
    assert done.healthy > 5
    assert done.problems == []


@pytest.mark.parametrize(("blind", "fault", "outcome"), BLINDED, ids=lambda part: getattr(part, "__name__", None))
def test_with_one_part_blinded_the_selftest_goes_red(
    trial: Callable[..., DetectionReport], monkeypatch: Patch, blind: Callable[[Patch], None], fault: str, outcome: str
) -> None:
    blind(monkeypatch)
    done = trial(fault)
    assert outcomes(done) == {fault: outcome}
    assert any(problem.startswith(f"{fault}: {outcome}; wanted ") for problem in done.problems)


# --- goldens ------------------------------------------------------------------------------------------------------------


def manifest_unchecked(patch: Patch) -> None:
    patch.setattr(store, "read_golden_tensor", lambda folder, name, entry: np.load(folder / name))


def strangers_welcome(patch: Patch) -> None:
    patch.setattr(selftest, "strangers", lambda *_: [])


def formulas_unchecked(patch: Patch) -> None:
    patch.setattr(verify, "_formula_error", lambda *_: 0.0)


def of_goldens(plan: Plan) -> dict[str, str]:
    found = selftest._of_goldens(plan.catalog.kernels[selftest.GOLDEN_SUBJECT], plan.folder)
    return {one.fault.removeprefix("goldens@"): one.outcome for one in found}


def test_faults_of_goldens_are_caught_in_copies_that_are_gone_afterwards(plan: Plan) -> None:
    before = {path: path.stat().st_mtime_ns for path in plan.folder.rglob("*")}
    assert of_goldens(plan) == dict.fromkeys(selftest.GOLDEN_FAULTS, "caught")
    assert {path: path.stat().st_mtime_ns for path in plan.folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("blind", "outcomes_then"),
    [
        ((manifest_unchecked,), {}),  # the formulas contradict the file, and name it
        (
            (manifest_unchecked, formulas_unchecked),
            {"flipped-bit": "missed", "stale-manifest": "missed", "nan": "missed"},
        ),
        ((strangers_welcome,), {"extra-file": "missed"}),
        ((formulas_unchecked,), {"nan": "missed"}),
    ],
    ids=["manifest", "manifest and formulas", "strangers", "formulas"],
)
def test_with_the_goldens_unchecked_their_faults_are_missed(
    plan: Plan, monkeypatch: Patch, blind: Sequence[Callable[[Patch], None]], outcomes_then: dict[str, str]
) -> None:
    for part in blind:
        part(monkeypatch)
    assert of_goldens(plan) == {**dict.fromkeys(selftest.GOLDEN_FAULTS, "caught"), **outcomes_then}


def test_the_whole_trial_has_the_faults_of_goldens_and_one_by_name_has_not(
    trial: Callable[..., DetectionReport], plan: Plan, monkeypatch: Patch
) -> None:
    one = next(fault for fault in plan.catalog.faults if fault.name == "faulty-torch@relu-one-ulp")
    catalog = msgspec.structs.replace(plan.catalog, faults=(one,))
    monkeypatch.setattr(selftest, "_of_goldens", lambda *_: [FABRICATED])
    whole = selftest.selftest(msgspec.structs.replace(plan, catalog=catalog), (), lambda _: None)
    assert outcomes(whole) == {one.name: "caught", FABRICATED.fault: "missed"}
    assert [problem.partition(":")[0] for problem in whole.problems] == [FABRICATED.fault]
    assert outcomes(trial(one.name)) == {one.name: "caught"}


FABRICATED = selftest.Detection(fault="goldens@made-up", family="goldens", what="", outcome="missed", wanted="an error")

# --- false alarms -------------------------------------------------------------------------------------------------------


def test_a_limit_that_is_too_strict_is_a_false_alarm(trial: Callable[..., DetectionReport], monkeypatch: Patch) -> None:
    monkeypatch.setitem(limits.SCALED_LIMITS, ("value", 32), 0.01)
    monkeypatch.setattr(
        actconform.run.subject.KernelSubject, "explain", lambda *_: Explanation({}, [])
    )  # or the formula explains what it finds
    done = trial("faulty-torch@sigmoid-nine-units")
    assert outcomes(done) == {"faulty-torch@sigmoid-nine-units": "caught"}
    (alarm,) = done.false_alarms
    assert alarm.startswith("sigmoid/value/f32/torch: FAIL, ")
    assert done.problems == [f"false alarm: {alarm}"]


def test_what_is_healthy_but_unusual_is_left_alone_or_a_false_alarm(
    trial: Callable[..., DetectionReport], monkeypatch: Patch
) -> None:
    name = "unusual-torch@tanh-by-expm1"
    alone = trial(name)
    assert (alone.detections, alone.false_alarms, alone.healthy) == ([], [], 1)
    assert alone.unusual[name].startswith("-expm1(-2|x|)")
    monkeypatch.setitem(limits.SCALED_LIMITS, ("value", 32), 0.01)
    (alarm,) = trial(name).false_alarms
    assert alarm.startswith(f"tanh/value/f32/{name}: FAIL")


def test_timeouts_are_those_of_the_settings_and_only_an_injected_hang_has_a_short_one(
    plan: Plan, monkeypatch: Patch
) -> None:
    asked: dict[str, float] = {}

    def ran(trial: Plan, _: object, on_result: Callable[[Result], None]) -> None:
        for case in trial.cases:
            asked[case.id] = trial.config.timeout
            on_result(result(case.id, Verdict.TIMEOUT if "hang" in case.route else Verdict.PASS, ()))

    monkeypatch.setattr(selftest, "run", ran)
    patient = msgspec.structs.replace(plan, config=msgspec.structs.replace(plan.config, timeout=700.0))
    done = selftest.selftest(patient, ["faulty-torch@hang", "faulty-torch@relu-one-ulp"], lambda _: None)
    assert outcomes(done) == {"faulty-torch@hang": "caught", "faulty-torch@relu-one-ulp": "missed"}
    assert asked == {
        "relu/value/f32/torch": 700.0,
        "relu/value/f32/faulty-torch@relu-one-ulp": 700.0,
        "relu/value/f32/faulty-torch@hang": selftest.HANG_SECONDS,
    }


def test_what_ran_out_of_time_is_told_apart_from_false_alarms_and_missed_faults(plan: Plan, monkeypatch: Patch) -> None:
    def ran(trial: Plan, _: object, on_result: Callable[[Result], None]) -> None:
        for case in trial.cases:
            on_result(result(case.id, Verdict.TIMEOUT, ()))

    monkeypatch.setattr(selftest, "run", ran)
    done = selftest.selftest(plan, ["faulty-torch@relu-one-ulp"], lambda _: None)
    assert (done.false_alarms, done.timeouts) == ([], ["relu/value/f32/torch"])
    assert outcomes(done) == {"faulty-torch@relu-one-ulp": "timeout"}
    assert len(done.problems) == 2  # unproven is not proven
    assert "ran out of time: relu/value/f32/torch; give it more: timeout in actconform.toml" in done.problems


@pytest.mark.parametrize("verdict", [verdict for verdict in BAD if verdict != Verdict.TIMEOUT])
def test_every_bad_verdict_on_a_healthy_backend_is_a_false_alarm(
    plan: Plan, monkeypatch: Patch, verdict: Verdict
) -> None:
    def ran(trial: Plan, _: object, on_result: Callable[[Result], None]) -> None:
        for case in trial.cases:
            on_result(result(case.id, verdict if case.route == "torch" else Verdict.FAIL, (finding("scaled-error"),)))

    monkeypatch.setattr(selftest, "run", ran)
    done = selftest.selftest(plan, ["faulty-torch@relu-one-ulp"], lambda _: None)
    assert done.problems == [f"false alarm: relu/value/f32/torch: {verdict}, made up"]


# --- outcomes, from fabricated results ----------------------------------------------------------------------------------

FAULTY = "relu/value/f32/faulty-torch@made-up"


def finding(class_: str, blame: str = "framework", tensor: str = "y", deviation: str | None = None) -> Finding:
    return Finding(
        class_=class_,
        count=1,
        regime="ordinary",
        tensor=tensor,
        interval=Interval("", ""),
        worst=None,
        magnitude=9.0,
        deviation=deviation,
        blame=blame,
    )


def result(case: str, verdict: Verdict, findings: tuple[Finding, ...] = ()) -> Result:
    subject, aspect, dtype, route = case.split("/")
    return Result(
        case=case,
        subject=subject,
        aspect=aspect,
        dtype=dtype,
        route=route,
        verdict=verdict,
        reason="made up",
        findings=findings,
    )


def fault(**changes: Any) -> Fault:
    made = Fault(
        name="faulty-torch@made-up",
        family="fabricated",
        what="",
        cases=(FAULTY,),
        findings=("scaled-error", "tail"),
        blames=("framework",),
    )
    return msgspec.structs.replace(made, **changes)


ENDS = {"findings": (), "blames": (), "verdict": "CRASH"}


@pytest.mark.parametrize(
    ("changes", "verdict", "findings", "outcome"),
    [
        ({}, "FAIL", [finding("tail")], "caught"),
        ({}, "FAIL", [finding("inf"), finding("scaled-error")], "caught"),
        ({}, "FAIL", [finding("scaled-error", "convention"), finding("scaled-error")], "caught"),
        ({}, "FAIL", [finding("scaled-error", "runtime"), finding("inf", "framework")], "wrong blame"),
        ({}, "FAIL", [finding("inf")], "wrong class"),
        ({}, "PASS", [], "missed"),
        ({}, "XFAIL", [finding("scaled-error", deviation="known")], "missed"),
        ({}, "FAIL", [finding("scaled-error", deviation="known"), finding("inf")], "wrong class"),
        ({}, "CRASH", [], "missed"),
        ({"tensor": "d_w"}, "FAIL", [finding("tail", tensor="d_w")], "caught"),
        ({"tensor": "d_w"}, "FAIL", [finding("tail", tensor="d_b")], "wrong class"),
        ({"tensor": "d_w"}, "FAIL", [finding("tail", "runtime", "d_w"), finding("tail")], "wrong blame"),
        (ENDS, "CRASH", [], "caught"),
        (ENDS, "TIMEOUT", [], "timeout"),
        ({}, "TIMEOUT", [], "timeout"),
        ({"findings": (), "blames": (), "verdict": "TIMEOUT"}, "TIMEOUT", [], "caught"),
        (ENDS, "FAIL", [finding("inf")], "wrong class"),
        (ENDS, "PASS", [], "missed"),
        (ENDS, "UNSUPPORTED", [], "missed"),
    ],
)
def test_the_outcome_says_what_went_wrong_with_a_fault(
    changes: dict[str, Any], verdict: str, findings: list[Finding], outcome: str
) -> None:
    one = fault(**changes)
    seen = selftest._detection(one, {FAULTY: result(FAULTY, Verdict(verdict), tuple(findings))})
    assert (seen.fault, seen.family, seen.outcome) == (one.name, "fabricated", outcome)
    if outcome != "caught":
        assert DetectionReport(detections=[seen], false_alarms=[], healthy=1, seconds=1.0).problems


def test_one_of_several_cases_is_enough() -> None:
    other = FAULTY.replace("value", "gradient")
    results = {FAULTY: result(FAULTY, Verdict.PASS), other: result(other, Verdict.FAIL, (finding("tail"),))}
    seen = selftest._detection(fault(cases=(FAULTY, other)), results)
    assert (seen.outcome, seen.seen) == ("caught", ("PASS", "tail (framework)"))


def test_a_fault_of_a_case_that_there_is_not_is_refused(plan: Plan) -> None:
    stray = fault(name="faulty-torch@relu-one-ulp", cases=("relu/value/f32/no-such-route",))
    catalog = msgspec.structs.replace(plan.catalog, faults=(stray,))
    with pytest.raises(UsageError, match=r"relu-one-ulp names the case relu/value/f32/no-such-route"):
        selftest.selftest(msgspec.structs.replace(plan, catalog=catalog), (), lambda _: None)


def test_results_are_told_as_they_come_for_the_faulty_and_the_healthy(
    trial: Callable[..., DetectionReport], plan: Plan, monkeypatch: Patch
) -> None:
    told: list[str] = []
    selftest.selftest(plan, ["faulty-torch@relu-one-ulp"], lambda one: told.append(one.case))
    assert sorted(told) == ["relu/value/f32/faulty-torch@relu-one-ulp", "relu/value/f32/torch"]


def test_an_entry_of_the_manifest_alone_does_not_make_a_copy_healthy(plan: Plan, tmp_path: Path) -> None:
    """The copy that golden faults are injected in is sound by itself, or every fault would be "caught"."""
    kernel = plan.catalog.kernels[selftest.GOLDEN_SUBJECT]
    copy = selftest._copied(kernel, plan.folder, tmp_path)
    assert json.loads((copy / store.MANIFEST).read_bytes())["subjects"].keys() == {kernel.name}
    assert selftest._golden_problems(kernel, copy) == []
