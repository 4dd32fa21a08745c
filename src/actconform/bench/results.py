"""The structs of throughput.json: the benchmark results with their raw samples, and the machine and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actconform.bench.intervals import ConfidenceInterval, interval, ratios
from actconform.bench.workloads import Workload  # noqa: TC001  msgspec reads annotations
from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.bench.interleaved import Samples
    from actconform.bench.verdicts import Judged

SCHEMA = 1
FILE = "throughput.json"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured: `affinity` are the processors that the workers may use, `capability` as in the facts."""

    cpu: str
    capability: str
    affinity: tuple[int, ...]
    threads: int
    memory: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration in the rounds of one workload: `amount` bytes copied, or operations of a matrix product, each call."""

    kind: Literal["copy", "matmul"]
    amount: int
    loops: int
    clock: float
    samples: tuple[float, ...]
    seconds: ConfidenceInterval
    rate: float


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One route of one workload. Times are seconds of a call.

    `samples` are raw, one a round, of `loops` calls each; reading the clock took `clock` s. `rate` is elements or samples a
    second, as `unit` says; `amount` is bytes moved of kernels, floating-point operations of models, each call, 0 where none
    are counted; `throughput` is amount a second, `share` of the calibration's: None on another device, or where nothing is
    counted. `to_calibration` is how many times the calibration's time it takes, `to_fastest` that of route `fastest`, round
    by round. `again` is how many times as long a second program of the same route took, round by round.
    """

    route: str
    verdict: str
    mark: str
    finding: str = ""
    implementation: str = ""
    placement: dict[str, tuple[str, ...]] = {}
    device: str = "cpu"
    loops: int
    clock: float
    samples: tuple[float, ...]
    seconds: ConfidenceInterval
    rate: float
    unit: Literal["elements/s", "samples/s"]
    amount: int
    throughput: float
    share: float | None
    to_calibration: ConfidenceInterval
    fastest: str
    to_fastest: ConfidenceInterval
    again: ConfidenceInterval | None = None


class NotTimed(msgspec.Struct, frozen=True):
    """A route of a workload without a result, by its case's verdict or because the timing stopped, and the reason."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    verdict: str
    reason: str


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One workload that was timed."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    calibration: Calibration
    figures: tuple[BenchmarkResult, ...]


class ThroughputReport(msgspec.Struct, frozen=True, kw_only=True):
    """throughput.json. `facts` are by backend; `rounds` are those of a workload, fewer where they took too long;
    `confidence` is the least of all intervals; `when` is its end, in UTC.
    """

    schema: int = SCHEMA
    when: str = ""
    actconform: str
    machine: Machine
    facts: dict[str, dict[str, str]]
    rounds: int
    confidence: float
    interrupted: bool
    seconds: float
    measured: list[Measured]
    not_timed: list[NotTimed]
    comparison: dict[str, Any] = {}


def calibrated(kind: Literal["copy", "matmul"], amount: int, samples: Samples) -> Calibration:
    """Return the calibration of a workload, its rate in `amount` a second."""
    seconds = interval(samples.samples)
    return Calibration(
        kind=kind,
        amount=amount,
        loops=samples.prepared.loops,
        clock=samples.prepared.clock,
        samples=tuple(samples.samples),
        seconds=seconds,
        rate=amount / seconds.median,
    )


def benchmark_result(
    case: Judged,
    samples: Samples,
    scale: Calibration,
    *,
    counts: tuple[int, int],
    device: str,
    again: Samples | None = None,
) -> BenchmarkResult:
    """Return the result of a route's samples; `counts` are elements or samples, and the bytes or operations of a call.

    Its `fastest` is the route itself, until `with_ratios` sets it.
    """
    processed, amount = counts
    seconds = interval(samples.samples)
    throughput = amount / seconds.median
    return BenchmarkResult(
        route=case.route,
        verdict=case.verdict,
        mark=case.mark,
        finding=case.finding,
        implementation=samples.prepared.implementation,
        placement=samples.prepared.placement or case.placement,
        device=device,
        loops=samples.prepared.loops,
        clock=samples.prepared.clock,
        samples=tuple(samples.samples),
        seconds=seconds,
        rate=processed / seconds.median,
        unit="samples/s" if scale.kind == "matmul" else "elements/s",
        amount=amount,
        throughput=throughput,
        share=throughput / scale.rate if amount and device == "cpu" else None,
        to_calibration=ratios(samples.samples, scale.samples),
        fastest=case.route,
        to_fastest=ratios(samples.samples, samples.samples),
        again=ratios(again.samples, samples.samples) if again and not again.stopped else None,
    )


def with_ratios(results: list[BenchmarkResult]) -> tuple[BenchmarkResult, ...]:
    """Return the results of a workload, each with its ratio to the fastest, the one with the least median."""
    fastest = min(results, key=lambda result: result.seconds.median, default=None)
    return tuple(
        msgspec.structs.replace(result, fastest=fastest.route, to_fastest=ratios(result.samples, fastest.samples))
        for result in results
        if fastest
    )


def read_throughput(folder: Path) -> ThroughputReport | None:
    """Return DIR/throughput.json, None where there is none; raise UsageError where it cannot be read or is something else."""
    path = folder / FILE
    try:
        return msgspec.json.decode(read_bytes(path), type=ThroughputReport)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        advice = "remove it, or measure anew with `actconform bench`"
        raise UsageError(f"{path}: not what `actconform bench` writes ({error}): {advice}") from error


def write(path: Path, content: object) -> None:
    """Write a struct as JSON in one step: there is all of it or what was there before. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
