"""Programs, methods and threads that get into each other's way are told from those that do not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest

from actconform import Backend, Kernel, Program, Unsupported, hookimpl
from actconform.plugin.loader import load_plugins
from actconform.types import Case
from actconform.workers.protocol import Call, Job
from actconform.workers.session import Session

X = np.linspace(-1, 2, 64, dtype=np.float32)


class Double(Program):
    implementation = "numpy"

    def forward(self, inputs: Any) -> Any:
        return {"y": 2 * inputs["x"]}

    def vjp(self, inputs: Any, cotangents: Any) -> Any:
        return {"d_x": 2 * cotangents["y"]}


class OneBuffer(Double):
    """Inputs of all programs lie in one buffer while they compute."""

    buffer: ClassVar[dict[str, Any]] = {}

    def forward(self, inputs: Any) -> Any:
        self.buffer["x"] = inputs["x"]
        return super().forward(self.buffer)


class OneFactor(Double):
    """What was built last decides for all."""

    factor: ClassVar[list[float]] = [1.0]

    def __init__(self, name: str) -> None:
        self.factor[0] = 3.0 if name == "tanh" else 1.0

    def forward(self, inputs: Any) -> Any:
        return {"y": np.float32(self.factor[0]) * inputs["x"]}


class Closing(OneFactor):
    def close(self) -> None:
        self.factor[0] = 5.0


class Spoilt(Double):
    spoilt = False

    def forward(self, inputs: Any) -> Any:
        factor, self.spoilt = np.float32(1 if self.spoilt else 2), False
        return {"y": factor * inputs["x"]}

    def vjp(self, inputs: Any, cotangents: Any) -> Any:
        self.spoilt = True
        return super().vjp(inputs, cotangents)


class NoForward(Double):
    def forward(self, inputs: Any) -> Any:
        raise Unsupported("gradients alone")


class Busy(Double):
    busy = False

    def forward(self, inputs: Any) -> Any:
        if self.busy:
            raise RuntimeError("infer request is busy")
        self.busy = True
        try:
            return super().forward(inputs)
        finally:
            self.busy = False


class Keeping(Double):
    kept: ClassVar[list[Any]] = []

    def forward(self, inputs: Any) -> Any:
        self.kept.append(np.ones(1 << 16, np.uint8))
        return super().forward(inputs)


class Hoarding(Double):
    kept: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.kept.append(np.ones(1 << 16, np.uint8))


class Seeding(Double):
    def forward(self, inputs: Any) -> Any:
        np.random.seed(3)  # noqa: NPY002
        return super().forward(inputs)


PROGRAMS: dict[str, Any] = {
    "double": lambda _: Double(),
    "one-buffer": lambda _: OneBuffer(),
    "one-factor": OneFactor,
    "closing": Closing,
    "spoilt": lambda _: Spoilt(),
    "no-forward": lambda _: NoForward(),
    "busy": lambda _: Busy(),
    "keeping": lambda _: Keeping(),
    "hoarding": lambda _: Hoarding(),
    "seeding": lambda _: Seeding(),
}


class Several(Backend):
    name = "several"
    kind = "framework"
    program: ClassVar[str] = ""

    def facts(self) -> dict[str, str]:
        return {}

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return PROGRAMS[self.program](kernel.name)


class Alone(Several):
    name = "alone"
    thread_safe = False


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Several, Alone]


CATALOG = load_plugins([Plugin])


def asked(program: str, aspect: Any = "value", backend: type[Several] = Several, *, side_effects: bool = True) -> Any:
    instance = backend()
    instance.program = program  # type: ignore[misc]
    call = Call("ordinary", {"x": X}, {"y": X[::-1].copy()} if aspect == "gradient" else None)
    job = Job(Case("relu", aspect, "f32", backend.name), None, [call], side_effects=side_effects)
    outcome = Session(instance, CATALOG).run(job)
    assert outcome.failure is None
    return outcome


@pytest.mark.parametrize("program", ["double", "no-forward"])
def test_a_program_that_keeps_to_itself_is_left_alone(program):
    outcome = asked(program, "gradient")
    assert (outcome.leaks, outcome.entangled, outcome.changed, outcome.altered) == ([], [], [], False)


@pytest.mark.parametrize(
    ("program", "aspect", "words"),
    [
        ("one-buffer", "value", "a call while another thread calls gives other bits"),
        ("one-factor", "value", "a call while another program is alive gives other bits"),
        ("closing", "value", "a call after another program was closed gives other bits"),
        ("spoilt", "gradient", "forward after vjp, where a fresh program is asked too, gives other bits"),
    ],
)
def test_what_programs_methods_and_threads_share_is_named(program, aspect, words):
    assert (words, "y") in asked(program, aspect).entangled
    assert asked(program, aspect, side_effects=False).entangled == []


def test_threads_are_asked_unless_the_backend_forbids_it():
    words, tensor = asked("busy").entangled[0]
    assert words.startswith("a call while another thread calls raises RuntimeError: infer request is busy")
    assert tensor == ""
    assert asked("busy", backend=Alone).entangled == []


@pytest.mark.parametrize(
    ("program", "words"), [("keeping", "at every further call"), ("hoarding", "for every program")]
)
def test_memory_that_calls_or_programs_keep_is_told(program, words):
    # In a process of its own, as a worker is: here, what earlier tests left behind may be freed meanwhile.
    ask = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['asked'](sys.argv[2]).leaks))"
    (leak,) = json.loads(subprocess.check_output([sys.executable, "-c", ask, __file__, program], text=True))
    assert "KiB more memory" in leak
    assert words in leak


def test_a_call_that_changes_the_process_is_told():
    state = np.random.get_state()  # noqa: NPY002
    try:
        ((name, words),) = asked("seeding").changed
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert name == "numpy's random state"
    assert words == "a call changes the process: numpy's random state changed"
