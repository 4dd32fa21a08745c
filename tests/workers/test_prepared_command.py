"""`prepare`: a graph is compiled once, and one start makes all calls of a case, whatever goes wrong in one of them."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.errors import Unsupported, WorkerTimeout
from actconform.settings import BackendConfig, Config
from actconform.types import Artifact, Case
from actconform.workers import command_program
from actconform.workers.command_runtime import CommandSettings, runtime
from actconform.workers.from_settings import configured_worker
from actconform.workers.protocol import Call, Job
from actconform.workers.session import CommandError

if TYPE_CHECKING:
    from pathlib import Path

COMPILE = """
    import pathlib, sys
    model, artifact = map(pathlib.Path, sys.argv[1:])
    artifact.write_bytes(b"compiled " + model.read_bytes())
    with open("log", "a") as log: log.write("prepare\\n")
"""
RELU = """
    import pathlib, sys
    import numpy as np
    artifact, given, taken = map(pathlib.Path, sys.argv[1:])
    assert artifact.read_bytes().startswith(b"compiled ")
    folders = sorted(given.iterdir(), key=lambda folder: int(folder.name))
    with open("log", "a") as log: log.write(f"start {len(folders)}\\n")
    for folder in folders:
        assert [file.name for file in folder.iterdir()] == ["x.npy"] and not [*(taken / folder.name).iterdir()]
        x = np.load(folder / "x.npy")
        HERE
        np.save(taken / folder.name / "y.npy", np.maximum(x, 0))
"""
CALLS = [{"x": np.array(numbers, np.float32)} for numbers in ([1, -2], [3], [-4, 5, np.nan], [3])]


def graph() -> Artifact:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Artifact(model.SerializeToString(), 18, "authored: Relu")


def about(folder: Path, here: str = "pass", compiler: str = COMPILE) -> CommandSettings:
    (folder / "rtc.py").write_text(textwrap.dedent(compiler))
    (folder / "rt.py").write_text(textwrap.dedent(RELU).replace("HERE", here))
    return CommandSettings(
        name="myrt",
        prepare=f"{sys.executable} rtc.py {{model}} {{artifact}}",
        command=f"{sys.executable} rt.py {{artifact}} {{inputs}} {{outputs}}",
        folder=str(folder),
    )


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def answers(settings: CommandSettings, calls: Any = CALLS) -> list[Any]:
    """Return what each call gives: outputs, or the exception."""
    program = runtime(settings)().load(graph(), "f32")
    try:
        program.expect(calls)
        taken = []
        for inputs in calls:
            try:
                taken.append(program.forward(inputs)["y"])
            except (CommandError, Unsupported) as error:
                taken.append(error)
        return taken
    finally:
        program.close()


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_all_calls_are_made_in_one_start_in_their_order_and_no_file_stays(tmp_path):
    for inputs, output in zip(CALLS, answers(about(tmp_path)), strict=True):
        np.testing.assert_array_equal(output, np.maximum(inputs["x"], 0))
    assert log(tmp_path) == ["prepare", "start 4"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_call_that_nobody_announced_has_a_start_of_its_own(tmp_path):
    program = runtime(about(tmp_path))().load(graph(), "f32")
    program.expect(CALLS[:2])
    for inputs in (CALLS[2], CALLS[0], CALLS[0], CALLS[1]):
        np.testing.assert_array_equal(program.forward(inputs)["y"], np.maximum(inputs["x"], 0))
    assert log(tmp_path) == ["prepare", "start 2", "start 1", "start 1"]


def test_a_graph_that_is_in_use_is_prepared_once(tmp_path):
    backend = runtime(about(tmp_path))()
    first, second = backend.load(graph(), "f32"), backend.load(graph(), "f32")
    first.close()
    second.forward(CALLS[0])
    second.close()
    assert log(tmp_path) == ["prepare", "start 1"]
    backend.load(graph(), "f32").close()
    assert log(tmp_path)[2:] == ["prepare"]


def test_a_call_alone_may_be_refused_by_a_file_in_its_folder(tmp_path):
    here = "if x.size == 1: (taken / folder.name / 'unsupported.txt').write_text('no single numbers'); continue"
    first, second, third, fourth = answers(about(tmp_path, here))
    assert [str(second), str(fourth)] == ["no single numbers"] * 2
    assert (first.shape, third.shape) == ((2,), (3,))
    assert log(tmp_path) == ["prepare", "start 4"]


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        ("sys.exit('single')", CommandError, "myrt ended with exit code 1; its last words:\n  single"),
        ("print('single', file=sys.stderr); sys.exit(3)", Unsupported, "single"),
    ],
)
def test_of_a_start_that_fails_each_call_is_made_again_by_itself_to_see_which(tmp_path, end, kind, message):
    first, second, third, fourth = answers(about(tmp_path, f"if x.size == 1: {end}"))
    np.testing.assert_array_equal(first, [1, 0])
    np.testing.assert_array_equal(third, [0, 5, np.nan])
    assert all(isinstance(error, kind) and str(error) == message for error in (second, fourth))
    assert log(tmp_path) == ["prepare", "start 4", *["start 1"] * 4]


def test_a_start_that_fails_where_each_call_alone_is_answered_is_an_error(tmp_path):
    *_, last = answers(about(tmp_path, "if len(folders) > 1: sys.exit('too many')"))
    assert str(last) == (
        "where it makes all calls in one start, though each alone is answered: myrt ended with exit code 1; its last words:\n  too many"
    )


def test_an_output_that_is_missing_is_an_error_of_its_call_alone(tmp_path):
    first, second, *_ = answers(about(tmp_path, "if folder.name == '1': continue"))
    assert isinstance(first, np.ndarray)
    assert str(second) == "myrt wrote nothing to {outputs}/1: wanted y.npy, no more"


@pytest.mark.parametrize(
    ("compiler", "kind", "message"),
    [
        ("import sys; sys.exit('no Relu')", CommandError, "myrt ended with exit code 1; its last words:\n  no Relu"),
        ("import sys; print('no Relu', file=sys.stderr); sys.exit(3)", Unsupported, "no Relu"),
        (
            "",
            CommandError,
            "myrt: prepare ended with exit code 0 and left nothing at {artifact}: wanted a file or a folder",
        ),
    ],
)
def test_what_prepare_does_wrong_is_named(tmp_path, compiler, kind, message):
    with pytest.raises(kind) as caught:
        answers(about(tmp_path, compiler=compiler))
    assert str(caught.value) == message
    assert list((tmp_path / "tmp").iterdir()) == []


def test_inputs_that_are_too_large_for_one_start_have_several(tmp_path, monkeypatch):
    monkeypatch.setattr(command_program, "MOST_BYTES", 20)
    program = runtime(about(tmp_path))().load(graph(), "f32")
    program.expect(CALLS)
    assert log(tmp_path) == ["prepare"]


def job(calls: Any = CALLS, **settings: Any) -> Job:
    case = Case("relu", "value", "f32", "authored+myrt")
    return Job(case, graph(), [Call("ordinary", inputs) for inputs in calls], **settings)


def config(folder: Path, here: str = "pass") -> Config:
    made = about(folder, here)
    settings = BackendConfig(prepare=made.prepare, command=made.command)
    return Config(backends={"myrt": settings}, path=str(folder / "actconform.toml"))


def test_a_job_with_repetitions_and_side_effects_is_one_start(tmp_path):
    with configured_worker("myrt", config(tmp_path)) as worker:
        outcome = worker.run(job(repeated=(0, 2), side_effects=True), 60)
    assert outcome.failure is None
    assert (outcome.unsteady, outcome.leaks, outcome.entangled, outcome.changed) == ([], [], [], [])
    assert log(tmp_path) == ["prepare", "start 6"]


def test_a_repetition_is_computed_again(tmp_path):
    here = "np.save(taken / folder.name / 'y.npy', np.float32([int(folder.name)])); continue"
    with configured_worker("myrt", config(tmp_path, here)) as worker:
        outcome = worker.run(job(repeated=(0,)), 60)
    assert outcome.unsteady == [(0, "y")]


def test_a_failure_names_the_call(tmp_path):
    with configured_worker("myrt", config(tmp_path, "if np.isnan(x).any(): sys.exit('NaN')")) as worker:
        failure = worker.run(job(), 60).failure
    assert msgspec.to_builtins(failure) == {
        "stage": "run",
        "kind": "error",
        "message": "myrt ended with exit code 1; its last words:\n  NaN",
        "call": 2,
    }


def test_a_command_that_hangs_leaves_its_last_words(tmp_path):
    here = "print('loading weights', file=sys.stderr, flush=True); import time; time.sleep(600)"
    with configured_worker("myrt", config(tmp_path, here)) as worker:
        worker.start(60)
        with pytest.raises(WorkerTimeout, match=r"was killed; its last words:\n  loading weights$"):
            worker.run(job(), 5)


def test_the_program_that_stands_alone_prepares_too(tmp_path):
    program: dict[str, Any] = {}
    exec(runtime(about(tmp_path)).reproduction(), program)  # noqa: S102  as repro.py runs it
    (tmp_path / "model.onnx").write_bytes(graph().model)
    np.testing.assert_array_equal(program["run"](str(tmp_path / "model.onnx"), CALLS[0], "")["y"], [1, 0])
    assert log(tmp_path) == ["prepare", "start 1"]
