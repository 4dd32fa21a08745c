"""Lines stay on the worker that has their processes, and another one helps where what is left pays for a second start."""

from __future__ import annotations

import pytest

from actconform.cluster.placement import LinePlacement, PlacedLine
from actconform.run.scheduler import Line
from actconform.types import Case

TWO = {"a": 1, "b": 1}


def line(backend: str, cases: int) -> Line:
    return Line(backend, "", [Case(f"subject-{number}", "value", "f32", backend) for number in range(cases)])


class Run:
    """Placed tasks as they run: a line's start takes 4 s, each of its cases `seconds`, and each task has one case."""

    def __init__(self, seconds: float, *lines: Line) -> None:
        self.placement, self.seconds = LinePlacement(lines), seconds
        self.running: list[tuple[str, PlacedLine, bool]] = []

    def place(self, threads: dict[str, int]) -> list[tuple[str, str]]:
        """Return worker and backend of what begins."""
        tasks = list(self.placement.tasks(threads))
        self.running += [(worker, placed, not cases) for worker, placed, cases in tasks]
        return [(worker, placed.line.backend) for worker, placed, _ in tasks]

    def end(self, worker: str) -> None:
        """End what the worker has."""
        for task in [task for task in self.running if task[0] == worker]:
            self.running.remove(task)
            _, placed, starts = task
            self.placement.ended(worker, placed)
            if starts:
                placed.started(4.0, [[case] for case in placed.line.cases])
            else:
                placed.ran(1, self.seconds)


def test_each_line_starts_once_and_the_one_of_most_cases_first() -> None:
    run = Run(1.0, line("small", 2), line("large", 9), line("middle", 5))
    assert run.place(TWO) == [("a", "large"), ("b", "middle")]
    run.end("b")
    assert run.place(TWO) == [("b", "small")]


def test_a_worker_without_work_is_given_none_where_the_rest_is_shorter_than_a_start() -> None:
    run = Run(0.1, line("torch", 9))
    assert run.place(TWO) == [("a", "torch")]
    run.end("a")
    while run.placement.waits:
        assert run.place(TWO) == [("a", "torch")]
        run.end("a")


def test_it_helps_where_the_rest_is_longer_than_a_start_and_then_keeps_the_line() -> None:
    run = Run(1.0, line("torch", 9))
    for _ in range(2):
        assert run.place(TWO) == [("a", "torch")]  # nothing is known of what its cases take
        run.end("a")
    assert run.place(TWO) == [("a", "torch"), ("b", "torch")]
    while run.placement.waits:
        run.end("a")
        run.end("b")
        assert run.place(TWO) == [("a", "torch"), ("b", "torch")][: len(run.running)]


def test_workers_help_the_longest_line_until_one_more_start_no_longer_pays() -> None:
    workers = {"a": 1, "b": 1, "c": 1}
    run = Run(1.0, line("torch", 9), line("keras", 20))
    for _ in range(2):
        assert [worker for worker, _ in run.place(workers)] == ["a", "b"]
        run.end("a")
        run.end("b")
    assert run.place(workers) == [("a", "keras"), ("b", "torch"), ("c", "keras")]
    # 17 s of keras and 7 s of torch wait: two more for keras, one for torch; 15 s on four workers, or 6 s on two, are less than a start for each
    workers |= dict.fromkeys("defg", 1)
    assert run.place(workers) == [("d", "keras"), ("e", "keras"), ("f", "torch")]


def test_a_worker_takes_its_short_lines_first_and_leaves_the_long_one_to_share() -> None:
    run = Run(1.0, line("long", 9), line("short", 3))
    for _ in range(4):  # both start, and both tell what their cases take
        run.place({"a": 1})
        run.end("a")
    assert run.place({"a": 1}) == [("a", "short")]
    assert run.place({"a": 1, "b": 1}) == [("b", "long")]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_of_a_worker_run_different_lines(threads: int) -> None:
    run = Run(1.0, line("torch", 9), line("keras", 9))
    run.place({"a": 2})
    run.end("a")
    assert run.place({"a": threads}) == [("a", "torch"), ("a", "keras")][:threads]


def test_a_line_whose_worker_has_gone_goes_to_another() -> None:
    run = Run(0.1, line("torch", 9))
    run.place({"a": 1})
    run.end("a")
    assert run.place({"b": 1}) == [("b", "torch")]
    assert run.place({}) == []
    assert run.placement.waits
