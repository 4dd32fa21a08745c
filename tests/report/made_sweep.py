"""Sweeps and compared chunks as a command leaves them."""

from __future__ import annotations

from actconform.exhaustive.patterns import CHUNKS, binades_of
from actconform.exhaustive.statistics import BINS, BinadeErrors, CountedInputs, SweepStatistics, WorstError
from actconform.sweep.differing_bits import ComparedChunk, RoutePair
from actconform.sweep.journal import Sweep, SweepIdentity, SweptChunk
from actconform.types import Case, Finding, FindingClass, Interval

HOSTILE = "=1+1\n<script>window.harm=1</script>"
MADE = Finding(
    class_=FindingClass.NAN_MADE,
    count=3,
    regime="sweep",
    tensor="y",
    interval=Interval("0x1", "0x2"),
    worst=None,
    magnitude=0.0,
)


def sweep(
    route, *, chunks=CHUNKS, error=0.75, extent="all", sha256="a", kernel="tanh", facts=None, sample="", place=""
):
    def chunk(number):
        low, high = binades_of(number)
        binades = (
            BinadeErrors(low, WorstError(error, f"0x{number:08x}", place), WorstError(0.5, "0x2")),
            BinadeErrors(high),
        )
        statistics = SweepStatistics(
            inputs=10,
            binades=binades,
            histogram=(8, *(0,) * (BINS - 2), 2),
            correctly_rounded=8,
            near_midway=1,
            flushed=CountedInputs(1, "0x00000001", "0x00000001"),
            findings=(MADE,) if number == 3 else (),
        )
        return SweptChunk(chunk=number, sha256=sha256, statistics=statistics, seconds=1.0)

    identity = SweepIdentity(
        actconform="1.0",
        case=Case(kernel, "value", "f32", route),
        extent=extent,
        definition="",
        provider="plugin 1",
        facts=facts or {},
        sample=sample,
    )
    return Sweep(identity=identity, chunks={number: chunk(number) for number in range(chunks)})


def compared(*, but_for=()):
    """JAX beside torch, compared but for some chunks: 2 inputs of each differ."""
    routes = RoutePair(*(sweep(route).identity.case for route in ("jax", "torch")), "all")
    counted = CountedInputs(2, "0x00000001", "0x80000002")
    chunks = [ComparedChunk(number, ("b", "a"), counted) for number in range(CHUNKS) if number not in but_for]
    return {routes: chunks}
