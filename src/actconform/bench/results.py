"""What throughput.json holds: the figures with their raw samples, and all under which they held."""

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
    """What the machine did in the rounds of one trial: `amount` bytes copied, or operations of a product, each call."""

    kind: Literal["copy", "matmul"]
    amount: int
    loops: int
    clock: float
    samples: tuple[float, ...]
    seconds: ConfidenceInterval
    rate: float


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One route in one trial. Times are seconds of a call.

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
    """A route of a trial that has no figure, by its case's verdict or because the timing stopped, and why."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    verdict: str
    reason: str


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One trial that was timed."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    calibration: Calibration
    figures: tuple[BenchmarkResult, ...]


class ThroughputReport(msgspec.Struct, frozen=True, kw_only=True):
    """throughput.json. `facts` are by backend; `rounds` are those of a trial, fewer where they took too long;
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


def calibrated(kind: Literal["copy", "matmul"], amount: int, taken: Samples) -> Calibration:
    """Return the calibration of a trial, its rate in `amount` a second."""
    found = interval(taken.samples)
    return Calibration(
        kind=kind,
        amount=amount,
        loops=taken.prepared.loops,
        clock=taken.prepared.clock,
        samples=tuple(taken.samples),
        seconds=found,
        rate=amount / found.median,
    )


def figure_of(
    case: Judged,
    taken: Samples,
    scale: Calibration,
    *,
    work: tuple[int, int],
    device: str,
    again: Samples | None = None,
) -> BenchmarkResult:
    """Return the figure of what was taken; `work` is elements or samples, and the amount of bytes or operations of a call.

    Until it is `compared`, it is the fastest.
    """
    count, amount = work
    seconds = interval(taken.samples)
    throughput = amount / seconds.median
    return BenchmarkResult(
        route=case.route,
        verdict=case.verdict,
        mark=case.mark,
        finding=case.finding,
        implementation=taken.prepared.implementation,
        placement=taken.prepared.placement or case.placement,
        device=device,
        loops=taken.prepared.loops,
        clock=taken.prepared.clock,
        samples=tuple(taken.samples),
        seconds=seconds,
        rate=count / seconds.median,
        unit="samples/s" if scale.kind == "matmul" else "elements/s",
        amount=amount,
        throughput=throughput,
        share=throughput / scale.rate if amount and device == "cpu" else None,
        to_calibration=ratios(taken.samples, scale.samples),
        fastest=case.route,
        to_fastest=ratios(taken.samples, taken.samples),
        again=ratios(again.samples, taken.samples) if again and not again.stopped else None,
    )


def with_ratios(figures: list[BenchmarkResult]) -> tuple[BenchmarkResult, ...]:
    """Return the figures of a trial, each with its ratio to the fastest, the one with the least median."""
    fastest = min(figures, key=lambda figure: figure.seconds.median, default=None)
    return tuple(
        msgspec.structs.replace(figure, fastest=fastest.route, to_fastest=ratios(figure.samples, fastest.samples))
        for figure in figures
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
        mend = "remove it, or measure anew with `actconform bench`"
        raise UsageError(f"{path}: not what `actconform bench` writes ({error}): {mend}") from error


def write(path: Path, content: object) -> None:
    """Write a struct as JSON in one step: there is all of it or what was there before. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
