"""The whole line with real worker processes: every fault costs one case, is named, and leaves the others as they are."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from processes import children

from actconform.errors import GoldenError
from actconform.plugin.loader import GROUP, load_plugins
from actconform.run.scheduler import Plan, facts_of, run
from actconform.run.select import all_cases
from actconform.settings import Config
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Result, Verdict
from actconform.types.cause import Register
from actconform.verdict.judge import conforms
from actconform.workers.protocol import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TESTS = Path(__file__).parents[1]
PLUGIN = "stand_in:Plugin"
HEALTHY = ("relu", "sigmoid", "softmax", "tanh", "relu-squared", "hard-shrink")


@pytest.fixture(scope="module", autouse=True)
def found_by_workers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS)
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        yield


def plan(
    subjects: Sequence[str],
    routes: Sequence[str] = ("stand-in",),
    *,
    aspects: Sequence[Any] = ("value",),
    dtypes: Sequence[str] = ("f32",),
    timeout: float = 60.0,
    extra: Sequence[str] = (),
    folder: Path | None = None,
) -> Plan:
    points = [EntryPoint(value, value, GROUP) for value in (PLUGIN, *extra)]
    points.append(EntryPoint("builtin", "actconform.plugin.builtin:Builtin", GROUP))
    catalog = load_plugins(entry_points=points)
    cases = [
        case
        for case in all_cases(catalog)
        if case.subject in subjects and case.route in routes and case.aspect in aspects and case.dtype in dtypes
    ]
    assert cases
    folder = folder or golden_dir()
    return Plan(
        cases=cases,
        catalog=catalog,
        config=Config(timeout=timeout),
        folder=folder,
        manifest=read_manifest(folder),
        register=Register(),
        plugins=(PLUGIN,),
    )


class Seen:
    """What a run told: each backend's start, each result, and the thread that brought it."""

    def __init__(self, then: Callable[[Seen], None] | None = None) -> None:
        self.starts: dict[str, Handshake | str] = {}
        self.results: list[Result] = []
        self.threads: set[threading.Thread] = set()
        self.then = then

    def start(self, backend: str, hello: Handshake | str, seconds: float) -> None:
        assert seconds > 0
        self.starts[backend] = hello

    def result(self, result: Result) -> None:
        self.results.append(result)
        self.threads.add(threading.current_thread())
        if self.then:
            self.then(self)

    @property
    def by_case(self) -> dict[str, Result]:
        return {result.case: result for result in self.results}


def ran(what: Plan) -> Seen:
    seen = Seen()
    run(what, seen.start, seen.result)
    assert sorted(result.case for result in seen.results) == sorted(case.id for case in what.cases)
    assert seen.threads == {threading.current_thread()}
    return seen


def none_left(before: set[int], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while children(os.getpid()) - before and time.monotonic() < end:
        time.sleep(0.05)
    return not children(os.getpid()) - before


def test_a_healthy_backend_passes_every_case_once() -> None:
    what = plan(("relu", "sigmoid", "softmax"), aspects=("value", "gradient"), dtypes=("f32", "f16", "bf16"))
    before = children(os.getpid())
    seen = ran(what)
    assert none_left(before)
    hello = seen.starts["stand-in"]
    assert isinstance(hello, Handshake)
    facts = facts_of(hello)
    assert facts["numpy"] == np.__version__
    assert {"python", "platform", "machine", "cpu_features"} <= set(facts)
    for result in seen.results:
        verdict, reason = Verdict.PASS, ""
        if (result.subject, result.aspect) == ("softmax", "gradient"):
            verdict, reason = Verdict.UNSUPPORTED, "numpy has no softmax gradient"
        assert (result.verdict, result.reason) == (verdict, reason), result.case
        assert result.seconds > 0
    for result in seen.results:
        if result.verdict is Verdict.PASS:
            assert result.measurements
            assert result.implementation == "numpy in float64, rounded once"
            assert {"draw", "build", "run", "compare", "messages", "checks"} <= set(result.timings)
            assert result.findings == ()


ENDED = {
    "elu": (Verdict.CRASH, "run", "killed by SIGSEGV while it ran elu/value/f32/stand-in"),
    "elu-half": (Verdict.CRASH, "run", "killed by SIGKILL (nobody here sent it"),
    "selu": (Verdict.CRASH, "run", "ended with exit code 3 while it ran"),
    "celu": (Verdict.TIMEOUT, "run", "while it ran celu/value/f32/stand-in"),
    "softsign": (Verdict.CRASH, "run", "out of memory: MemoryError: 16 GiB wanted"),
    "gelu-erf": (Verdict.ERROR, "run", "ZeroDivisionError"),
    "silu": (Verdict.UNSUPPORTED, "run", '"stand_in" not implemented for Float'),
    "mish": (Verdict.UNSUPPORTED, "supports", "numpy has no mish value"),
}
FOUND = {
    "linear": {"names"},
    "relu6": {"shape"},
    "hard-tanh": {"dtype"},
    "threshold": {"dtype"},
    "leaky-relu": {"mutates-input"},
    "leaky-relu-0.2": {"nondeterministic"},
    "leaky-relu-0.3": {"scaled-error"},
    "thresholded-relu": {"nan-lost"},
}


@pytest.fixture(scope="module")
def faulty(found_by_workers: None) -> Seen:
    return ran(plan((*HEALTHY, *ENDED, *FOUND), timeout=3.0))


@pytest.mark.parametrize("kernel", HEALTHY)
def test_the_neighbours_of_faults_pass(faulty: Seen, kernel: str) -> None:
    result = faulty.by_case[f"{kernel}/value/f32/stand-in"]
    assert (result.verdict, result.reason) == (Verdict.PASS, "")


@pytest.mark.parametrize("kernel", ENDED)
def test_a_case_that_gives_no_answer_says_why(faulty: Seen, kernel: str) -> None:
    result = faulty.by_case[f"{kernel}/value/f32/stand-in"]
    verdict, stage, words = ENDED[kernel]
    assert (result.verdict, result.stage) == (verdict, stage)
    assert words in result.reason
    assert (result.findings, result.measurements) == ((), ())


@pytest.mark.parametrize("kernel", FOUND)
def test_a_wrong_answer_has_the_finding_of_its_kind(faulty: Seen, kernel: str) -> None:
    result = faulty.by_case[f"{kernel}/value/f32/stand-in"]
    assert (result.verdict, result.stage) == (Verdict.FAIL, "judge")
    classes = {finding.class_ for finding in result.findings}
    assert FOUND[kernel] <= classes
    if kernel != "leaky-relu-0.2":  # one ULP up or down breaks its exact tier too
        assert classes == FOUND[kernel]
    assert result.blame == "framework"


def test_one_flipped_element_is_one_finding_of_one_element(faulty: Seen) -> None:
    (finding,) = faulty.by_case["leaky-relu-0.3/value/f32/stand-in"].findings
    assert finding.count == 1
    assert finding.worst is not None
    assert 1 < finding.worst.truth < 2
    assert abs(finding.worst.got - finding.worst.truth) == 0.25


def test_words_of_a_worker_that_died_are_kept(faulty: Seen) -> None:
    assert "the library says goodbye" in faulty.by_case["selu/value/f32/stand-in"].reason
    assert "in hang" in faulty.by_case["celu/value/f32/stand-in"].reason


def test_backends_that_cannot_run_do_not_touch_the_others() -> None:
    missing = "no_module_of_that_name:Plugin"
    routes = ("stand-in", "no-device", "dies-at-start", "stand_in:Broken", missing)
    what = plan(("relu", "tanh"), routes, extra=("stand_in:Broken", missing))
    seen = ran(what)
    assert {result.verdict for result in seen.results if result.route == "stand-in"} == {Verdict.PASS}
    wanted = {
        "no-device": (Verdict.UNAVAILABLE, "no device: libnone.so.9 missing"),
        "dies-at-start": (Verdict.CRASH, "was killed by SIGABRT while it started"),
        "stand_in:Broken": (Verdict.ERROR, "plugin stand_in:Broken (from stand_in:Broken) is broken: ImportError: lib"),
        missing: (Verdict.ERROR, "is broken: ModuleNotFoundError: No module named 'no_module_of_that_name'"),
    }
    for route, (verdict, words) in wanted.items():
        mine = [result for result in seen.results if result.route == route]
        assert [(result.verdict, result.stage) for result in mine] == [(verdict, "load")] * 2
        assert all(words in result.reason for result in mine)
        assert words in seen.starts[route] if route != "no-device" else seen.starts[route].unavailable
    problems = conforms(what.cases, seen.results, None)
    assert any(problem.startswith("required route no-device did not run: no device") for problem in problems)
    assert not any("stand-in" in problem for problem in problems)


def test_a_damaged_golden_ends_the_run(tmp_path: Path) -> None:
    shutil.copy(golden_dir() / "manifest.json", tmp_path)
    for kernel in ("relu", "tanh"):
        shutil.copytree(golden_dir() / kernel, tmp_path / kernel)
    damaged = tmp_path / "tanh" / "y.npy"
    content = bytearray(damaged.read_bytes())
    content[-9] ^= 1
    damaged.write_bytes(content)
    before = children(os.getpid())
    with pytest.raises(GoldenError, match=r"tanh/y\.npy: damaged golden"):
        ran(plan(("relu", "tanh"), folder=tmp_path))
    assert none_left(before)


def test_a_fault_of_ours_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    from actconform.run.subject import KernelSubject

    def explain(self: Any, *arguments: Any) -> Any:
        if self._kernel.name == "relu":
            raise AssertionError("nobody thought of this")
        return real(self, *arguments)

    real = KernelSubject.explain
    monkeypatch.setattr(KernelSubject, "explain", explain)
    seen = ran(plan(("relu", "tanh")))
    wrong, right = seen.by_case["relu/value/f32/stand-in"], seen.by_case["tanh/value/f32/stand-in"]
    assert wrong.verdict is Verdict.ERROR
    assert wrong.reason.startswith("a fault in actconform: AssertionError: nobody thought of this (at ")
    assert right.verdict is Verdict.PASS


def test_an_interrupt_ends_the_workers_and_passes_on() -> None:
    def interrupt(seen: Seen) -> None:
        if len(seen.results) == 3:
            raise KeyboardInterrupt

    before = children(os.getpid())
    seen = Seen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(plan((*HEALTHY, "celu"), ("stand-in", "no-device")), seen.start, seen.result)
    assert len(seen.results) == 3
    assert not any("line_results" in thread.name for thread in threading.enumerate())
    assert not children(os.getpid()) - before


def test_an_interrupt_does_not_wait_for_a_case_that_hangs() -> None:
    def interrupt(seen: Seen) -> None:
        time.sleep(0.3)  # into the midst of the next case
        raise KeyboardInterrupt

    before, started = children(os.getpid()), time.monotonic()
    seen = Seen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(plan(("tanh", "celu"), timeout=300.0), seen.start, seen.result)
    assert time.monotonic() - started < 60  # celu sleeps for 600 s
    assert none_left(before)


def test_an_interrupt_that_wakes_nothing_ends_the_run_all_the_same() -> None:
    def interrupt(backend: str, hello: Handshake | str, seconds: float) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # as one that comes just before the wait for results

    before, started = children(os.getpid()), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(plan(("celu",), timeout=300.0), interrupt, Seen().result)
    assert time.monotonic() - started < 60  # celu sleeps for 600 s
    assert none_left(before)


def test_a_worker_killed_from_outside_costs_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTCONFORM_TEST_MARKS", str(tmp_path))
    monkeypatch.setenv("ACTCONFORM_TEST_CALL_SECONDS", "0")
    seen = Seen()

    def kill() -> None:
        end = time.monotonic() + 60
        while not (tmp_path / "celu").exists() and time.monotonic() < end:
            time.sleep(0.01)
        hello = seen.starts["stand-in"]
        assert isinstance(hello, Handshake)
        os.kill(hello.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    run(plan(("tanh", "celu", "relu", "sigmoid"), timeout=300.0), seen.start, seen.result)
    killer.join()
    verdicts = {result.subject: result.verdict for result in seen.results}
    hung = seen.by_case["celu/value/f32/stand-in"]
    assert verdicts.pop("celu") is Verdict.CRASH
    assert "killed by SIGKILL" in hung.reason
    assert set(verdicts.values()) == {Verdict.PASS}
