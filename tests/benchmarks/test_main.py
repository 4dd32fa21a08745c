"""The logic of the benchmarks; what they measure is for `make bench`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as bench


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the steps move: its one element is the time."""
    now = [100.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    return now


def test_interleaved_takes_turns_and_returns_the_least_of_each(clock: list[float]) -> None:
    turns = []
    seconds = {"first": iter([3.0, 1.0, 2.0]), "second": iter([5.0, 7.0, 4.0])}

    def step(name: str) -> None:
        turns.append(name)
        clock[0] += next(seconds[name])

    assert bench.interleaved(lambda: step("first"), lambda: step("second"), rounds=3) == (1.0, 4.0)
    assert turns == ["first", "second"] * 3


@pytest.mark.parametrize(("ratios", "code"), [((0.5, 1.0), 0), ((0.5, 1.001), 1)])
def test_the_exit_code_says_whether_a_limit_is_broken(
    monkeypatch: pytest.MonkeyPatch, ratios: tuple[float, float], code: int
) -> None:
    names = ("comparison", "help_text")
    for name, ratio in zip(names, ratios, strict=True):
        monkeypatch.setattr(bench, name, lambda ratio=ratio, name=name: (f"about {name}", ratio, 1.0))
    for name in (
        "measuring",
        "run_stages",
        "onnx_suite",
        "serving",
        "lint_of_large_models",
        "transformations",
        "forward_and_backward",
        "training_steps",
        "sweeping",
        "timings",
    ):
        monkeypatch.setattr(bench, name, lambda name=name: iter([(f"about {name}", 0.1, 1.0)]))
    done = CliRunner().invoke(bench.main)
    assert done.exit_code == code
    assert [line[:4] for line in done.output.splitlines()].count("OVER") == code
    assert all(
        f"about {name}" in done.output
        for name in (
            *names,
            "run_stages",
            "onnx_suite",
            "serving",
            "lint_of_large_models",
            "transformations",
            "forward_and_backward",
            "training_steps",
            "sweeping",
            "timings",
        )
    )
