"""Workers in real processes: what a backend does wrong costs one case, and is named."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import actconform
from actconform.errors import WorkerCrash, WorkerError, WorkerTimeout
from actconform.machine.cpu import cpu_features
from actconform.run.scheduler import facts_of
from actconform.types import Artifact, Case
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, ExportJob, ExportResult, Job, JobResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
START = 60.0
X = np.array([1.0, -2.0, np.nan], np.float32)


def fake_worker(
    backend: str = "fake", plugins: tuple[str, ...] = (), env: Mapping[str, str] | None = None, **options: Any
) -> Worker:
    path = os.pathsep.join([str(HERE), (env or {}).get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")])
    return Worker(backend, plugins=("fake:Plugin", *plugins), env={**(env or {}), "PYTHONPATH": path}, **options)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with fake_worker() as one:
        one.start(START)
        yield one


def job(kernel: str, *arrays: np.ndarray[Any, Any], aspect: Any = "value", dtype: str = "f32") -> Job:
    calls = [
        Call("ordinary", {"x": array}, {"y": np.full_like(array, 3)} if aspect == "gradient" else None)
        for array in arrays or (X,)
    ]
    return Job(Case(kernel, aspect, dtype, "fake"), None, calls)


def run(worker: Worker, kernel: str, *arrays: np.ndarray[Any, Any], **options: Any) -> JobResult:
    return worker.run(job(kernel, *arrays, **options), timeout=20)


def pid_of(worker: Worker) -> int:
    return int(run(worker, "pid").outputs[0]["pid"])


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process and all its threads have ended; one that nobody has reaped yet has ended too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            states = [
                (task / "stat").read_text().rpartition(")")[2].split()[0]
                for task in Path(f"/proc/{pid}/task").iterdir()
            ]
        except (FileNotFoundError, ProcessLookupError):
            states = []
        if states in ([], ["Z"]):
            return True
        time.sleep(0.05)
    return False


def test_a_worker_says_what_it_is(worker: Worker) -> None:
    hello = worker.start(START)
    assert (hello.actconform, hello.backend, hello.kind) == (actconform.__version__, "fake", "framework")
    assert hello.facts == {"numpy": np.__version__}
    assert hello.executable == sys.executable
    assert hello.provider == "from fake:Plugin"
    assert hello.plugins["actconform"]
    assert hello.cpu
    assert hello.machine == platform.machine()
    assert hello.cpu_features == (" ".join(cpu_features()) or "none")
    assert hello.unavailable == hello.problem == ""


def test_a_worker_says_its_own_machine_and_processor(tmp_path: Path) -> None:
    emulated = """import actconform.machine.cpu, platform
platform.machine = lambda: "riscv64"
actconform.machine.cpu.cpu_features = lambda: ("RVV",)
"""
    (tmp_path / "sitecustomize.py").write_text(emulated, encoding="utf-8")
    with fake_worker(env={"PYTHONPATH": str(tmp_path)}) as there:
        facts = facts_of(there.start(START))
    assert (facts["machine"], facts["cpu_features"]) == ("riscv64", "RVV")
    assert platform.machine() != "riscv64"


def test_values_come_back_in_order(worker: Worker) -> None:
    outcome = run(worker, "relu", X, np.float32([[-5, 5]]))
    assert outcome.failure is None
    assert outcome.implementation == "numpy"
    np.testing.assert_array_equal(outcome.outputs[0]["y"], np.float32([1, 0, np.nan]))
    np.testing.assert_array_equal(outcome.outputs[1]["y"], np.float32([[0, 5]]))
    assert (outcome.mutated, outcome.unsteady) == ([], [])
    assert set(outcome.timings) == {"build", "run", "worker"}


def test_gradients_are_pulled_back_and_a_changed_cotangent_is_told(worker: Worker) -> None:
    outcome = run(worker, "relu", aspect="gradient")
    np.testing.assert_array_equal(outcome.outputs[0]["d_x"], np.float32([3, 0, 0]))
    assert outcome.mutated == [(0, "cotangent y")]


def test_a_runtime_is_given_the_graph() -> None:
    with fake_worker("fake-runtime") as runtime:
        case = Case("whatever", "value", "f32", "authored+fake-runtime")
        calls = [Call("ordinary", {"x": X})]
        outcome = runtime.run(Job(case, Artifact(b"graph", 20, "authored"), calls), timeout=20)
        assert outcome.outputs[0]["model"].tobytes() == b"graph"
        assert "load" in outcome.timings
        failure = runtime.run(Job(case, None, calls), timeout=20).failure
        assert failure is not None
        assert (failure.stage, failure.kind) == ("load", "error")
        assert "fake-runtime loads graphs, and the job of route 'authored+fake-runtime' brings none" in failure.message


def test_the_level_of_a_job_reaches_the_runtime() -> None:
    with fake_worker("levelled") as runtime:
        case = Case("whatever", "value", "f32", "authored+levelled")
        for level in ("", "none", "without Folding", ""):
            work = Job(case, Artifact(b"graph", 20, "authored"), [Call("ordinary", {"x": X})], level)
            (outputs,) = runtime.run(work, timeout=20).outputs
            assert outputs["level"].tobytes().decode() == f"<{level}>"


@pytest.mark.parametrize(
    ("kernel", "dtype", "where", "words"),
    [
        ("relu", "bf16", ("supports", "unsupported", None), "fake has no bf16"),
        ("unbuilt", "f32", ("build", "unsupported", None), "fake has no function for it"),
        ("nobody-knows", "f32", ("build", "error", None), "no kernel or model 'nobody-knows': install the plugin"),
        ("no-program", "f32", ("build", "error", None), "build returned a function: wanted an actconform.Program"),
        ("refuse", "f32", ("run", "unsupported", 0), '"fake_cpu" not implemented for Half'),
        ("no-memory", "f32", ("run", "memory", 0), "MemoryError: 16 GiB wanted"),
        ("no-memory-in-words", "f32", ("run", "memory", 0), "can't allocate memory"),
        ("divide", "f32", ("run", "error", 0), "ZeroDivisionError: "),
        ("divide", "f32", ("run", "error", 0), 'return {"y": np.float32(1 // 0)})'),
        ("stop", "f32", ("run", "error", 0), "SystemExit: the library left"),
        ("panic", "f32", ("run", "error", 0), "PanicError: called unwrap on a None"),
        ("wordless", "f32", ("run", "error", 0), "WordlessError"),
        ("list", "f32", ("run", "error", 0), "forward returned a list: wanted a dict of output name to numpy array"),
        (
            "scalar",
            "f32",
            ("run", "error", 0),
            "forward returned a float as 'y': wanted a dict of output name to numpy",
        ),
        ("objects", "f32", ("run", "error", 0), "dtype object cannot be sent: wanted numbers"),
        ("bad-close", "f32", ("run", "error", None), "RuntimeError: cannot free"),
    ],
)
def test_a_fault_is_named_with_its_stage_and_words(
    worker: Worker, kernel: str, dtype: str, where: tuple[str, str, int | None], words: str
) -> None:
    pid = pid_of(worker)
    failure = run(worker, kernel, dtype=dtype).failure
    assert failure is not None
    assert (failure.stage, failure.kind, failure.call) == where
    assert words in failure.message
    assert pid_of(worker) == pid


def test_what_was_computed_before_a_failure_is_kept(worker: Worker) -> None:
    outcome = run(worker, "reused", X, X[:1].repeat(2))
    assert outcome.failure is not None
    assert outcome.failure.call == 1
    assert len(outcome.outputs) == 1


def test_what_libraries_print_cannot_break_a_frame(worker: Worker) -> None:
    outcome = run(worker, "chatty")
    assert outcome.failure is None
    np.testing.assert_array_equal(outcome.outputs[0]["y"], np.float32([1, 0, np.nan]))


def test_an_input_changed_in_place_is_told_and_the_next_call_is_clean(worker: Worker) -> None:
    outcome = run(worker, "mutate", np.float32([7]), np.float32([0, 1, 2]), np.float32([-0.0, 1, 2]))
    assert outcome.mutated == [(1, "x")]
    assert outcome.unsteady == []


def test_an_answer_that_differs_between_two_runs_is_told(worker: Worker) -> None:
    assert run(worker, "random").unsteady == [(0, "y")]
    assert run(worker, "counting", X, X).unsteady == [(0, "y")]


def test_a_program_may_reuse_its_buffers(worker: Worker) -> None:
    outcome = run(worker, "reused", np.float32([1, 2, 3]), np.float32([4, 5, 6]))
    assert [bundle["y"].tolist() for bundle in outcome.outputs] == [[1, 2, 3], [4, 5, 6]]
    assert outcome.unsteady == []


def test_any_dtype_and_layout_comes_back(worker: Worker) -> None:
    got = run(worker, "many-dtypes").outputs[0]
    assert got["bf16"].dtype.name == "bfloat16"
    assert got["f64"] == 0.1
    assert got["f64"].shape == ()
    assert got["i32"].dtype == np.int32
    assert got["bool"].tolist() == [True, False]
    assert got["c64"].tolist() == [1 + 2j]
    assert got["big"].tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(got["strided"], np.arange(12.0).reshape(3, 4).T[::2])
    assert got["empty"].shape == (0, 3)


def test_large_arrays_pass_both_ways(worker: Worker) -> None:
    big = np.arange(1 << 22, dtype=np.float32)
    np.testing.assert_array_equal(run(worker, "relu", big).outputs[0]["y"], big)


def export(worker: Worker, exporter: str, kernel: str = "relu", timeout: float = 20) -> ExportResult:
    return worker.export(ExportJob(exporter, kernel, "f32"), timeout)


def test_a_graph_comes_back_with_what_was_warned_of(worker: Worker) -> None:
    outcome = export(worker, "fake-exporter")
    assert outcome.artifact == Artifact(b"relu in f32", 20, "traced", ("its own",))
    assert outcome.failure is None
    assert outcome.seconds > 0
    for _ in range(2):  # what Python would say once a process is said of each graph
        graph = export(worker, "grumbling").artifact
        assert graph is not None
        assert graph.warnings == ("the trace is a constant", "operator [Erfc] is not supported")
    assert run(worker, "relu").failure is None


@pytest.mark.parametrize(
    ("exporter", "kernel", "kind", "words"),
    [
        ("fake-exporter", "refuse", "unsupported", "SymbolicValueError: no symbol for refuse"),
        ("fake-exporter", "divide", "error", "ZeroDivisionError: "),
        ("fake-exporter", "no-memory", "memory", "MemoryError: 16 GiB wanted"),
        ("fake-exporter", "no-program", "error", "export returned a bytes: wanted an actconform.Artifact"),
        ("fake-exporter", "nobody-knows", "error", "the fake worker knows no kernel or model 'nobody-knows'"),
        ("elsewhere", "relu", "error", "no exporter 'elsewhere'; it has fake-exporter, grumbling"),
    ],
)
def test_a_faulty_export_is_named(worker: Worker, exporter: str, kernel: str, kind: str, words: str) -> None:
    outcome = export(worker, exporter, kernel)
    assert outcome.artifact is None
    assert outcome.failure is not None
    assert (outcome.failure.stage, outcome.failure.kind) == ("export", kind)
    assert words in outcome.failure.message


def test_a_crash_or_a_hang_costs_one_export() -> None:
    with fake_worker() as one:
        with pytest.raises(WorkerCrash, match="was killed by SIGSEGV while it exported segfault/f32/fake-exporter"):
            export(one, "fake-exporter", "segfault")
        with pytest.raises(WorkerTimeout, match=r"no answer in 0.5 s while it exported hang/f32(.|\n)*in hang_here"):
            export(one, "fake-exporter", "hang", timeout=0.5)
        assert export(one, "fake-exporter").artifact is not None


def test_an_export_where_the_backend_cannot_run_says_what_is_missing() -> None:
    with fake_worker("no-device") as one:
        failure = export(one, "elsewhere").failure
        assert failure is not None
        assert (failure.stage, failure.kind) == ("load", "unavailable")
        assert "libcudnn.so.9 is missing" in failure.message


def test_threads_are_set() -> None:
    with fake_worker(threads=3, env={"OMP_NUM_THREADS": "7"}) as one:
        outputs = run(one, "environment").outputs[0]
        assert (outputs["ACTCONFORM_THREADS"], outputs["OMP_NUM_THREADS"]) == (3, 7)


@pytest.mark.parametrize(
    ("kernel", "cause", "words"),
    [
        ("segfault", "was killed by SIGSEGV", r"Segmentation fault(.|\n)*in segfault"),
        ("killed", "was killed by SIGKILL .*ran out of memory", "it said nothing"),
        ("leave", "ended with exit code 3", "the library says goodbye"),
    ],
)
def test_a_crash_costs_one_case_and_is_named(kernel: str, cause: str, words: str) -> None:
    with fake_worker() as one:
        with pytest.raises(
            WorkerCrash, match=f"the fake worker {cause}(.|\n)*while it ran {kernel}/value/f32/fake(.|\n)*{words}"
        ):
            run(one, kernel)
        assert run(one, "relu").failure is None


def test_a_hang_ends_at_the_deadline_and_says_where() -> None:
    with fake_worker() as one:
        pid = pid_of(one)
        with pytest.raises(WorkerTimeout, match=r"gave no answer in 0.5 s while it ran hang/value(.|\n)*in hang_here"):
            one.run(job("hang"), timeout=0.5)
        assert gone(pid)
        assert pid_of(one) != pid


def test_a_worker_killed_between_jobs_is_replaced() -> None:
    with fake_worker() as one:
        pid = pid_of(one)
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        assert run(one, "relu").failure is None


def test_a_close_ends_a_running_job_and_later_ones() -> None:
    one = fake_worker()
    pid = pid_of(one)
    raised: list[BaseException] = []

    def hang() -> None:
        try:
            one.run(job("hang"), timeout=60)
        except WorkerError as error:
            raised.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    while not one._lock.locked():
        time.sleep(0.01)
    process = one._process
    one.close()
    assert process is not None
    assert (process._popen.returncode, process._stdout.closed) == (-signal.SIGKILL, True)  # reaped when close returns
    thread.join(10)
    assert [getattr(error, "kind", None) for error in raised] == ["closed"]
    assert "the fake worker was closed while it ran hang/value/f32/fake" in str(raised[0])
    assert gone(pid)
    with pytest.raises(WorkerError, match="the fake worker is closed"):
        run(one, "relu")


def test_one_worker_serves_several_threads(worker: Worker) -> None:
    answers: dict[int, list[float]] = {}

    def ask(number: int) -> None:
        for _ in range(5):
            answers.setdefault(number, []).append(float(run(worker, "relu", np.float32([number])).outputs[0]["y"][0]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [float(number)] * 5 for number in range(4)}


def test_ctrl_c_is_not_for_workers(worker: Worker) -> None:
    pid = pid_of(worker)
    os.kill(pid, signal.SIGINT)
    assert os.getsid(pid) == pid
    assert pid_of(worker) == pid


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("no-device", "libcudnn.so.9 is missing: install"),
        ("no-package", "No module named 'a_framework_that_nobody_has'"),
    ],
)
def test_a_backend_that_cannot_run_here_says_what_is_missing(backend: str, words: str) -> None:
    with fake_worker(backend) as one:
        assert words in one.start(START).unavailable
        failure = run(one, "relu").failure
        assert failure is not None
        assert failure.kind == "unavailable"
        assert words in failure.message


def test_a_start_that_dies_or_hangs_is_named() -> None:
    with (
        fake_worker("dies-at-start") as one,
        pytest.raises(WorkerCrash, match="was killed by SIGABRT while it started"),
    ):
        one.start(START)
    longer = r"let a start take longer: --timeout 240 of the command, or, where it has none, timeout = 240 in actconform\.toml"
    words = f"no answer in .* while it started, and was killed; on a busy or slow machine {longer}"
    with fake_worker("hangs-at-start") as one, pytest.raises(WorkerTimeout, match=words):
        one.start(2)


@pytest.mark.parametrize(
    ("backend", "plugins", "words"),
    [
        ("fale", (), "no installed plugin gives a backend 'fale' for .*; did you mean fake"),
        ("fale", ("fake:Broken",), "plugin fake:Broken .* is broken: ImportError: libfake.so.1 is missing"),
        ("fake", ("fake:Mistyped",), "a hook that nothing calls: actconform_kernel; did you mean actconform_kernels"),
        ("bad-facts", (), "facts: TypeError: facts returned a list: wanted a dict"),
    ],
)
def test_a_handshake_that_fails_says_why(backend: str, plugins: tuple[str, ...], words: str) -> None:
    with fake_worker(backend, plugins) as one, pytest.raises(WorkerError, match=words) as raised:
        one.start(START)
    assert raised.value.kind == "handshake"


def test_another_version_of_actconform_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import actconform._version as about; about.__version__ = '0.0.9'")
    here = actconform.__version__
    words = f"has actconform 0.0.9, the driver has {here}: .*python[0-9.]* -m pip install actconform=={here}"
    with fake_worker(env={"PYTHONPATH": str(tmp_path)}) as one, pytest.raises(WorkerError, match=words) as raised:
        one.start(START)
    assert raised.value.kind == "handshake"


def distribution(folder: Path, version: str) -> Path:
    info = folder / f"actconform_test_extra-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: actconform-test-extra\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[actconform]\nextra = actconform_test_extra:Plugin\n")
    return folder


def test_unequal_versions_of_a_plugin_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(distribution(tmp_path / "here", "1.0"))
    there = str(distribution(tmp_path / "there", "2.0"))
    words = r"has actconform-test-extra 2.0, the driver has 1.0: .*pip install actconform-test-extra==1.0"
    with fake_worker(env={"PYTHONPATH": there}) as one, pytest.raises(WorkerError, match=words) as raised:
        one.start(START)
    assert raised.value.kind == "handshake"


def test_an_interpreter_without_actconform_is_named(tmp_path: Path) -> None:
    with (
        Worker("torch", python=str(tmp_path / "python")) as one,
        pytest.raises(WorkerError, match="cannot start the torch"),
    ):
        one.start(START)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    with (
        Worker("torch", python=str(bare)) as one,
        pytest.raises(WorkerError, match="bare has no actconform for") as raised,
    ):
        one.start(START)
    assert raised.value.kind == "handshake"


@pytest.mark.parametrize("kernel", ["relu", "hang"])
def test_workers_end_with_their_driver(kernel: str) -> None:
    script = f"""
        import sys; sys.path.insert(0, {str(HERE)!r})
        from test_client import fake_worker, job, pid_of
        worker = fake_worker()
        print(pid_of(worker), flush=True)
        worker.run(job({kernel!r}), timeout=60)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        time.sleep(0.2)
        driver.kill()
    assert gone(pid)


def test_a_worker_that_is_renewed_has_another_process_for_the_next_job(worker):
    before = pid_of(worker)
    worker.renew()
    assert gone(before)
    assert pid_of(worker) != before
    worker.renew()
    worker.renew()  # nothing runs: nothing to end
