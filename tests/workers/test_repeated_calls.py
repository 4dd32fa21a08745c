"""Calls that are made again, and calls whose arrays lie otherwise: what a session tells of a program that minds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform import Backend, Case, Program, Support, hookimpl
from actconform.catalog.kernels import UNARY
from actconform.plugin.loader import load_plugins
from actconform.workers.layouts import LAYOUTS
from actconform.workers.protocol import Call, Job, JobResult
from actconform.workers.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

X = np.arange(1, 9, dtype=np.float32)


class Asked(Program):
    """Answers twice its input, after `before` has had the inputs and the number of the call."""

    implementation = "numpy"

    def __init__(self, before: Callable[[dict[str, Any], int], object]) -> None:
        self.before, self.calls = before, 0

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        factor = self.before(inputs, self.calls)
        return {"y": inputs["x"] * np.float32(2 if factor is None else factor)}

    def vjp(self, inputs: dict[str, Any], cotangents: dict[str, Any]) -> dict[str, Any]:
        self.before({**inputs, **cotangents}, 0)
        return {"d_x": 2 * cotangents["y"]}


class Numpy(Backend):
    name = "numpy"
    kind = "framework"
    program: Asked

    def facts(self) -> dict[str, str]:
        return {}

    def supports(self, case: Case) -> Support:
        return Support(yes=True)

    def build(self, kernel: Any, dtype: str) -> Program:
        return self.program


class Plugin:
    @hookimpl
    def actconform_kernels(self) -> list[Any]:
        return [kernel for kernel in UNARY if kernel.name == "relu"]

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Numpy]


def outcome_of(
    before: Callable[[dict[str, Any], int], object], *calls: Call, repeated: tuple[int, ...] = ()
) -> JobResult:
    backend = Numpy()
    backend.program = Asked(before)
    session = Session(backend, load_plugins([Plugin()], entry_points=[]))
    outcome = session.run(Job(Case("relu", "value", "f32", "numpy"), None, list(calls), repeated=repeated))
    assert outcome.failure is None
    assert len(outcome.outputs) == len(calls)
    return outcome


def test_calls_are_made_again_in_the_order_asked_for():
    order: list[int] = []
    calls = [Call("ordinary", {"x": X[:n]}) for n in (1, 2, 3)]
    outcome = outcome_of(lambda inputs, _: order.append(inputs["x"].size), *calls, repeated=(2, 0, 2))
    assert order == [1, 2, 3, 3, 1, 3]
    assert (outcome.unsteady, outcome.second) == ([], {})


def test_an_answer_that_changes_late_is_told_once_with_what_it_was():
    outcome = outcome_of(
        lambda _, call: 3 if call > 4 else 2, *[Call("ordinary", {"x": X})] * 2, repeated=(0, 1, 0, 0, 0)
    )
    assert outcome.unsteady == [(0, "y")]
    np.testing.assert_array_equal(outcome.outputs[0]["y"], 2 * X)
    np.testing.assert_array_equal(outcome.second[0]["y"], 3 * X)


def test_an_input_that_is_written_to_at_a_later_call_alone_is_told_once():
    def write(inputs: dict[str, Any], call: int) -> None:
        if call > 1:
            inputs["x"][0] = 7

    assert outcome_of(write, Call("ordinary", {"x": X}), repeated=(0, 0)).mutated == [(0, "x")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_comes_in_its_layout_each_time(layout: str):
    seen: list[Any] = []
    rows = np.tile(X, (3, 1))
    call = Call("memory", {"x": rows, "slope": X}, layout=layout)
    outcome = outcome_of(lambda inputs, _: seen.append(inputs), call, Call("ordinary", {"x": rows}), repeated=(0,))
    (first, plain, again) = [inputs["x"] for inputs in seen]
    assert plain.flags.c_contiguous
    assert plain.ctypes.data % 64 == 0
    assert (first.strides, first.flags.writeable) == (again.strides, again.flags.writeable)
    assert (first.strides, first.flags.writeable, first.ctypes.data % 64) != (plain.strides, True, 0)
    np.testing.assert_array_equal(outcome.outputs[0]["y"], 2 * rows)
    assert (outcome.mutated, outcome.refused) == ([], {})


def test_the_first_array_may_lie_plainly_beside_the_others():
    seen: list[Any] = []
    call = Call("memory", {"x": X}, {"y": X}, layout="strided", first_plain=True)
    outcome_of(lambda inputs, _: seen.append(inputs), call)
    assert [seen[0][name].strides for name in ("x", "y")] == [(4,), (8,)]


def test_a_layout_that_is_refused_is_told_and_the_call_is_made_with_aligned_arrays():
    def refuse(inputs: dict[str, Any], _: int) -> None:
        if not inputs["x"].flags.c_contiguous:
            raise ValueError("a contiguous array is wanted")

    calls = [Call("memory", {"x": X}, layout=layout) for layout in ("offset", "strided")]
    outcome = outcome_of(refuse, *calls, repeated=(1, 0))
    assert list(outcome.refused) == [1]
    assert "a contiguous array is wanted" in outcome.refused[1]
    np.testing.assert_array_equal(outcome.outputs[1]["y"], 2 * X)


def test_what_fails_with_aligned_arrays_too_is_no_refusal():
    def fail(*_: object) -> None:
        raise ValueError("no")

    backend = Numpy()
    backend.program = Asked(fail)
    session = Session(backend, load_plugins([Plugin()], entry_points=[]))
    job = Job(Case("relu", "value", "f32", "numpy"), None, [Call("memory", {"x": X}, layout="strided")])
    outcome = session.run(job)
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.refused) == ("error", {})


def test_what_is_written_beside_an_array_is_told():
    def write(inputs: dict[str, Any], _: int) -> None:
        x = inputs["x"]
        np.lib.stride_tricks.as_strided(x, (2 * x.size,), (x.itemsize,))[1] = 5

    assert outcome_of(write, Call("memory", {"x": X}, layout="strided")).mutated == [(0, "x")]
