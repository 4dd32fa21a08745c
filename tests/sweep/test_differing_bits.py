"""Chunks in which routes differ are compared once, and never again for the same outputs."""

from __future__ import annotations

import hashlib
import time
from typing import NamedTuple

import numpy as np
import pytest

from actconform.errors import SweepError, UsageError
from actconform.exhaustive.patterns import binades_of, patterns
from actconform.exhaustive.statistics import CountedInputs, SweepStatistics
from actconform.sweep.differing_bits import BitsComparison, SweptRoute, compare_chunks, read_compared
from actconform.sweep.journal import Sweep, SweepIdentity, SweptChunk
from actconform.sweep.summary import same_bits
from actconform.types import Case
from actconform.workers.sweep_session import SweepResult

CHUNKS = (62, 63)
NEVER = float("inf")
SIZE = 1 << 16  # inputs of a chunk of range sample


def outputs(chunk, changed):
    """The number of the chunk everywhere, but for some inputs."""
    array = np.full(SIZE, float(chunk), np.float32)
    array[list(changed)] += 1
    return array


class FakeWorker:
    def __init__(self, changed):
        self.changed, self.asked, self.closed = changed, [], False

    def sweep(self, job, timeout):
        assert job.outputs
        self.asked.append(job.chunk)
        array = outputs(job.chunk, self.changed)
        return SweepResult(outputs={"y": array}, sha256=hashlib.sha256(array.data).hexdigest())

    def close(self):
        self.closed = True


class Route(NamedTuple):
    """A route that was swept, on a backend of its name, with that backend's workers."""

    swept: SweptRoute
    workers: list[FakeWorker]


def swept(route, changed, workers=1):
    identity = SweepIdentity(
        actconform="1.0",
        case=Case("tanh", "value", "f32", route),
        extent="sample",
        definition="",
        provider="fake 1",
        facts={},
    )
    chunks = {
        number: SweptChunk(
            chunk=number,
            sha256=hashlib.sha256(outputs(number, changed).data).hexdigest(),
            statistics=SweepStatistics(inputs=SIZE),
            seconds=1.0,
        )
        for number in CHUNKS
    }
    sweep = Sweep(identity=identity, chunks=chunks)
    return Route(SweptRoute(sweep, None, route), [FakeWorker(changed) for _ in range(workers)])


def compare(folder, *routes, resume=False, deadline=NEVER, then=lambda: None):
    """Return the chunks that were compared."""
    done = []

    def keep(compared):
        comparison.keep(compared)
        done.append(compared[0][1].chunk)
        then()

    places = range(len(routes[0].workers))
    teams = [{route.swept.backend: route.workers[place] for route in routes} for place in places]
    with BitsComparison((route.swept for route in routes), folder, resume=resume) as comparison:
        compare_chunks(comparison.chunks(comparison.pairs), teams, deadline, keep)
    return done


def pairs_of(folder, routes):
    return same_bits([route.swept.sweep for route in routes], read_compared(folder))


def summary(folder, *routes):
    return [str(pair) for pair in pairs_of(folder, routes)]


def pattern(chunk, place):
    return f"0x{np.concatenate([patterns(binade, 'sample') for binade in binades_of(chunk)])[place]:08x}"


def test_inputs_that_differ_are_counted_for_every_two_routes_and_each_program_computes_a_chunk_once(tmp_path):
    routes = swept("c", ()), swept("a", (3, 7)), swept("b", (7,)), swept("d", ())
    assert compare(tmp_path, *routes) == [63, 62]
    assert [route.workers[0].asked for route in routes] == [[63, 62]] * 4
    pairs = {(pair.first.case.route, pair.second.case.route): pair for pair in pairs_of(tmp_path, routes)}
    counts = {routes: pair.differing.count for routes, pair in pairs.items()}
    assert counts == {("a", "b"): 2, ("a", "c"): 4, ("a", "d"): 4, ("b", "c"): 2, ("b", "d"): 2, ("c", "d"): 0}
    assert pairs["a", "b"].differing == CountedInputs(2, pattern(62, 3), pattern(63, 3))
    assert all((pair.inputs, pair.uncounted) == (2 * SIZE, 0) for pair in pairs.values())
    assert not list(tmp_path.glob("*.c.d.*"))


def test_what_is_compared_is_not_compared_again_and_a_line_that_is_cut_off_is(tmp_path):
    compare(tmp_path, swept("a", (3,)), swept("b", ()))
    (journal,) = tmp_path.glob("*.bits.jsonl")
    before = journal.read_bytes()
    again = swept("a", (3,)), swept("b", ())
    assert compare(tmp_path, *again, resume=True) == []
    assert journal.read_bytes() == before
    journal.write_bytes(before[:-9])
    assert compare(tmp_path, *again, resume=True) == [62]
    assert journal.read_bytes() == before


def test_a_comparison_holds_for_its_outputs_alone(tmp_path):
    compare(tmp_path, swept("a", (3,)), swept("b", ()))
    changed = swept("a", (3, 4, 5)), swept("b", ())
    assert summary(tmp_path, *changed) == [
        "tanh, value: a and b are bit-identical on 0 of 2 chunks; not counted: the inputs of 2 of 2 unequal chunks"
    ]
    compare(tmp_path, *changed, resume=True)
    (words,) = summary(tmp_path, *changed)
    assert words.endswith(f", and differ on 6 of 131,072 inputs, from {pattern(62, 3)} to {pattern(63, 5)}")


def test_workers_share_the_chunks_and_after_the_deadline_none_is_begun(tmp_path):
    routes = swept("a", (3,), workers=2), swept("b", (), workers=2)
    assert compare(tmp_path, *routes, deadline=time.monotonic() - 1) == []
    assert sorted(compare(tmp_path, *routes)) == [62, 63]
    for route in routes:
        assert sorted(chunk for worker in route.workers for chunk in worker.asked) == [62, 63]


def test_a_program_that_gives_other_bits_than_in_the_sweep_is_no_count(tmp_path):
    wavering = swept("a", (3,))
    wavering.workers[0].changed = (4,)
    with pytest.raises(
        SweepError, match="tanh/value/f32/a, chunk 63: the same inputs gave other bits than in the sweep"
    ):
        compare(tmp_path, wavering, swept("b", ()))
    assert summary(tmp_path, wavering, swept("b", ()))[0].endswith("not counted: the inputs of 2 of 2 unequal chunks")


def test_a_full_disk_closes_the_workers(tmp_path):
    routes = swept("a", (3,)), swept("b", ())

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        compare(tmp_path, *routes, then=full)
    assert all(route.workers[0].closed for route in routes)


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "a.bits.jsonl").write_text('{"sweep": 1}\n')
    with pytest.raises(UsageError, match="is no comparison of bits"):
        read_compared(tmp_path)
