"""`serve`: one process answers all calls; whatever it does wrong costs a call, and is named."""

from __future__ import annotations

import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.errors import Unavailable, Unsupported, WorkerTimeout
from actconform.settings import BackendConfig, Config
from actconform.types import Artifact, Case
from actconform.workers.command_runtime import CommandSettings, runtime
from actconform.workers.from_settings import configured_worker
from actconform.workers.protocol import Call, Job
from actconform.workers.serve import frames
from actconform.workers.session import CommandError

SERVER = """
    import os, sys
    import numpy as np
    from actconform.workers.serve.frames import GraphUnsupported, answer_requests

    def relu(inputs):
        (x,) = inputs.values()
        HERE
        return {"/norm/y": np.where(x < 0x8000, x, 0).astype(x.dtype) if x.dtype == np.uint16 else np.maximum(x, 0)}

    def load(path):
        print("loading", path)
        with open("log", "a") as log: log.write(f"load {os.getpid()}\\n")
        assert open(path, "rb").read()
        LOADING
        return relu

    with open("log", "a") as log: log.write("start\\n")
    answer_requests("served relu 1.2", load)
"""
X = np.array([1.0, -2.0, np.nan], np.float32)


def graph(kind: int = TensorProto.FLOAT) -> Artifact:
    ends = [helper.make_tensor_value_info(name, kind, ["n"]) for name in ("x", "/norm/y")]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["/norm/y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Artifact(model.SerializeToString(), 18, "authored: Relu")


def about(folder: Path, here: str = "pass", loading: str = "pass", **settings: Any) -> CommandSettings:
    script = textwrap.dedent(SERVER).replace("HERE", here).replace("LOADING", loading)
    (folder / "rt.py").write_text(script)
    return CommandSettings(
        **{
            "name": "myrt",
            "serve": f"{sys.executable} rt.py",
            "folder": str(folder),
            "version_seconds": 60.0,
            **settings,
        }
    )


def log(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "log").read_text().splitlines()]


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """What starts a runtime whose server is as the arguments say."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    started = []

    def start(*arguments: Any, **settings: Any) -> Any:
        started.append(runtime(about(tmp_path, *arguments, **settings))())
        return started[-1]

    yield start
    for backend in started:
        backend._served.close()


def test_one_process_loads_all_graphs_and_answers_all_calls(tmp_path, serving):
    backend = serving()
    assert backend.facts()["runtime"] == "served relu 1.2"
    first, second = backend.load(graph(), "f32"), backend.load(graph(TensorProto.BFLOAT16), "bf16")
    for _ in range(3):
        np.testing.assert_array_equal(first.forward({"x": X})["/norm/y"], [1, 0, np.nan])
    halves = second.forward({"x": X[:2].astype(ml_dtypes.bfloat16)})["/norm/y"]
    assert (halves.dtype, halves.astype(float).tolist()) == (ml_dtypes.bfloat16, [1, 0])
    first.close()
    second.close()
    assert log(tmp_path) == ["start", "load", "load"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("here", "kind", "message"),
    [
        ("raise GraphUnsupported('no NaN here')", Unsupported, "no NaN here"),
        ("raise ValueError('too long')", CommandError, "myrt: ValueError: too long"),
        ("return {'z': x}", CommandError, "the answer has z: wanted /norm/y, no more"),
        ("return {}", CommandError, "the answer has nothing: wanted /norm/y, no more"),
    ],
)
def test_a_fault_costs_its_call_alone(tmp_path, serving, here, kind, message):
    program = serving(f"if x.size == 3: {here}").load(graph(), "f32")
    with pytest.raises(kind) as caught:
        program.forward({"x": X})
    assert str(caught.value) == message
    np.testing.assert_array_equal(program.forward({"x": X[:2]})["/norm/y"], [1, 0])
    assert log(tmp_path) == ["start", "load"]


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            "print('no device', file=sys.stderr); os.abort()",
            r"myrt was killed by SIGABRT; its last words:(\n  .*)*no device",
        ),
        ("os._exit(3)", r"myrt ended with exit code 3; its last words:\n  loading /"),
        ("os.write(4, b'hello there, this is no message')", "sent something else than an answer: .*hello there"),
        ("os.write(4, frames.HEAD.pack(b'ACS1', 16, 9, 0))", "message of kind 16 for graph 9: wanted an answer"),
        (
            "os.write(4, frames.HEAD.pack(b'ACS1', 16, 1, 1) + frames.BLOB.pack(1, 1 << 62))",
            "sent something else than an answer: a blob of 4,611,686,018,427,387,904 bytes: a message has at most 1,073,741,824",
        ),
        ("os.close(4); os.close(1); import time; time.sleep(600)", "closed its standard output and did not end"),
    ],
)
def test_a_process_that_dies_or_babbles_is_started_again_and_costs_one_call(tmp_path, serving, here, message):
    # 4 is the file that its answers go to: the one after the requests
    program = serving(f"from actconform.workers.serve import frames\n    if x.size == 3: {here}").load(graph(), "f32")
    with pytest.raises(CommandError, match=message):
        program.forward({"x": X})
    np.testing.assert_array_equal(program.forward({"x": X[:2]})["/norm/y"], [1, 0])
    program.close()
    assert log(tmp_path) == ["start", "load", "start", "load"]


COUNTED = "with open('log', 'a') as log: log.write('call\\n')"


def test_calls_that_are_expected_are_computed_ahead_each_once(tmp_path, serving):
    program = serving(COUNTED).load(graph(), "f32")
    calls = [{"x": X}, {"x": X}, {"x": X[1:]}, {"x": X}]
    program.expect(calls)
    assert program.forward(calls[0])["/norm/y"].shape == (3,)
    deadline = time.monotonic() + 30
    while log(tmp_path).count("call") < len(calls) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log(tmp_path).count("call") == len(calls)
    for inputs in calls[1:]:
        np.testing.assert_array_equal(program.forward(inputs)["/norm/y"], np.maximum(inputs["x"], 0))
    assert log(tmp_path).count("call") == len(calls)
    program.forward(calls[0])
    assert log(tmp_path).count("call") == len(calls) + 1


def test_other_calls_than_those_that_are_expected_are_answered_too(serving):
    backend = serving()
    first, second = backend.load(graph(), "f32"), backend.load(graph(), "f32")
    large = np.arange(-400_000, 400_000, dtype=np.float32)  # more than a pipe holds
    calls = [X, X[:2], large, large[::-1], X[:1]]
    first.expect([{"x": x} for x in calls])
    for x in calls:
        for program, asked in ((first, X[1:]), (second, X), (first, x)):
            np.testing.assert_array_equal(program.forward({"x": asked})["/norm/y"], np.maximum(asked, 0))


@pytest.mark.parametrize(
    ("here", "message", "starts"),
    [
        ("os.abort()", "myrt was killed by SIGABRT", 2),
        ("os.write(4, b'hello there, this is no message')", "sent something else than an answer", 2),
        ("raise ValueError('too long')", "myrt: ValueError: too long", 1),
        ("raise GraphUnsupported('no NaN here')", "no NaN here", 1),
    ],
)
def test_what_ends_a_call_that_was_sent_ahead_ends_no_other(tmp_path, serving, here, message, starts):
    program = serving(f"if x.size == 3: {here}").load(graph(), "f32")
    program.expect([{"x": x} for x in (X[:2], X[:1], X, X[:2], X[:1])])
    for x in (X[:2], X[:1]):
        np.testing.assert_array_equal(program.forward({"x": x})["/norm/y"], np.maximum(x, 0))
    with pytest.raises((CommandError, Unsupported), match=message):
        program.forward({"x": X})
    for x in (X[:2], X[:1]):
        np.testing.assert_array_equal(program.forward({"x": x})["/norm/y"], np.maximum(x, 0))
    program.close()
    assert log(tmp_path) == ["start", "load"] * starts


def test_a_death_names_its_call_among_those_of_a_case(tmp_path):
    calls = [Call("", {"x": x}) for x in (X[:2], X[:1], X, X[:2])]
    with configured_worker("myrt", config(tmp_path, "if x.size == 3: os.abort()")) as worker:
        outcome = worker.run(msgspec.structs.replace(job(), calls=calls), 60)
    assert outcome.failure is not None
    assert (outcome.failure.call, len(outcome.outputs)) == (2, 2)
    assert "SIGABRT" in outcome.failure.message


def test_a_graph_that_is_refused_is_unsupported(serving):
    with pytest.raises(Unsupported, match=r"^no Relu$"):
        serving("pass", "raise GraphUnsupported('no Relu')").load(graph(), "f32")


def test_prepare_makes_what_is_loaded(tmp_path, serving):
    compiler = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text('compiled')"
    prepare = f'{sys.executable} -c "{compiler}" {{model}} {{artifact}}'
    program = serving("pass", "assert open(path).read() == 'compiled'", prepare=prepare).load(graph(), "f32")
    np.testing.assert_array_equal(program.forward({"x": X[:2]})["/norm/y"], [1, 0])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('hello'); import time; time.sleep(600)", "sent something else than an answer: .*hello|gave no answer"),
        ("import sys; sys.exit('no licence')", r"myrt ended with exit code 1; its last words:\n  no licence"),
        ("import time; time.sleep(600)", "myrt gave no answer to hello in 2 s"),
        (
            "from actconform.workers.serve import frames; frames.PROTOCOL = b'2'; frames.answer_requests('newer', None)",
            "myrt: ValueError: protocol 1 is asked for; this is 2",
        ),
    ],
)
def test_a_server_that_does_not_say_hello_is_unavailable_and_why(tmp_path, serving, script, message):
    (tmp_path / "other.py").write_text(script)
    with pytest.raises(Unavailable, match=message):
        serving(serve=f"{sys.executable} other.py", version_seconds=2.0).facts()


def test_a_message_that_is_too_large_is_not_sent(monkeypatch, serving):
    program = serving().load(graph(), "f32")
    monkeypatch.setattr(frames, "MOST_BYTES", 100)
    with pytest.raises(CommandError, match="1 tensors of 140 bytes: a message has at most 100 bytes"):
        program.forward({"x": X})


def config(folder: Path, *arguments: str) -> Config:
    made = about(folder, *arguments)
    return Config(backends={"myrt": BackendConfig(serve=made.serve)}, path=str(folder / "actconform.toml"))


def job() -> Job:
    return Job(Case("relu", "value", "f32", "authored+myrt"), graph(), [Call("", {"x": X})] * 3, side_effects=True)


def test_a_worker_asks_what_calls_leave_behind_and_starts_one_process(tmp_path):
    with configured_worker("myrt", config(tmp_path)) as worker:
        outcome = worker.run(job(), 60)
    assert outcome.failure is None
    assert (outcome.unsteady, outcome.leaks, outcome.entangled, outcome.changed) == ([], [], [], [])
    assert log(tmp_path).count("start") == 1


def test_an_answer_that_depends_on_earlier_calls_is_noticed(tmp_path):
    here = "count = relu.__dict__.setdefault('count', [0]); count[0] += 1; x = x + count[0]"
    with configured_worker("myrt", config(tmp_path, here)) as worker:
        outcome = worker.run(job(), 60)
    assert outcome.unsteady == [(0, "/norm/y")]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_hangs_leaves_its_last_words_and_ends_with_its_worker(tmp_path):
    here = "print('waiting for the device', os.getpid()); import time; time.sleep(600)"
    with configured_worker("myrt", config(tmp_path, here)) as worker:
        worker.start(60)
        with pytest.raises(WorkerTimeout, match=r"waiting for the device \d+$") as caught:
            worker.run(job(), 5)
    pid = int(str(caught.value).split()[-1])
    deadline = time.monotonic() + 30  # it is killed, which a busy machine takes its time for
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(pid)


def test_the_program_that_stands_alone_serves_too(tmp_path):
    program: dict[str, Any] = {}
    exec(runtime(about(tmp_path)).reproduction(), program)  # noqa: S102  as repro.py runs it
    (tmp_path / "model.onnx").write_bytes(graph().model)
    outputs = program["run"](str(tmp_path / "model.onnx"), {"x": X[:2]}, "")
    assert list(outputs) == ["/norm/y"]
    np.testing.assert_array_equal(outputs["/norm/y"], [1, 0])
