"""Two threads that call one program: what they share shows, and those that wait for each other are left alone."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

from actconform import Program
from actconform.workers.interleaving import at_once, between_lines

ONES, TWOS = {"x": np.ones(3)}, {"x": np.full(3, 2.0)}


class Double(Program):
    def forward(self, inputs: Any) -> Any:
        return {"y": 2 * inputs["x"]}

    def vjp(self, inputs: Any, cotangents: Any) -> Any:
        return {"d_x": 2 * cotangents["y"]}


class Fields(Double):
    def forward(self, inputs: Any) -> Any:
        self.inputs = inputs
        return super().forward(self.inputs)


class Locked(Fields):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def forward(self, inputs: Any) -> Any:
        with self.lock:
            return super().forward(inputs)


class Raises(Double):
    def forward(self, inputs: Any) -> Any:
        raise RuntimeError("infer request is busy")


def answers(program: Program) -> tuple[list[Any], list[Any]]:
    first, second = between_lines(
        program, lambda stopped: stopped.forward(ONES), lambda: program.forward(TWOS), (1, 2, 3, 5, 8)
    )
    return [answer["y"][0] for answer in first], [answer["y"][0] for answer in second]


def test_a_call_between_the_lines_of_another_changes_what_they_share():
    assert answers(Fields())[0] == [4.0]


def test_calls_that_share_nothing_or_wait_for_each_other_answer_as_ever():
    first, second = answers(Double())
    assert (first, set(second)) == ([2.0], {4.0})
    first, second = answers(Locked())
    assert (first, set(second)) == ([2.0], {4.0})
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace())


def test_the_other_method_is_stopped_too():
    program = Double()
    first, second = between_lines(
        program, lambda one: one.vjp(ONES, {"y": ONES["x"]}), lambda: program.forward(TWOS), (1,)
    )
    assert first[0]["d_x"][0] == 2.0
    assert len(second) == 1


def test_both_calls_begin_together_and_what_they_raise_is_their_answer():
    together = threading.Barrier(2, timeout=10)

    def call() -> Any:
        together.wait()
        return ONES

    usual = sys.getswitchinterval()
    assert at_once([call, call], 3) == [[ONES] * 3, [ONES] * 3]
    assert sys.getswitchinterval() == usual
    ((error,), (answer,)) = at_once([lambda: Raises().forward(ONES), lambda: ONES], 1)
    assert "busy" in str(error)
    assert answer is ONES
