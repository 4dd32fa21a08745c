"""What a suite tells: the verdicts of each case on each runtime, by its own limits and by bounds of the truth, and of its own data."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

StandardVerdict: TypeAlias = Literal["passed", "failed", "not supported"]
TruthState: TypeAlias = Literal["within", "outside", "not judged", "refused", "error", "memory", "crash", "timeout"]
STANDARD_VERDICTS: tuple[StandardVerdict, ...] = ("passed", "failed", "not supported")
TRUTH_STATES: tuple[TruthState, ...] = (
    "within", "outside", "not judged", "refused", "error", "memory", "crash", "timeout"
)  # fmt: skip
NO_ANSWER: tuple[TruthState, ...] = ("refused", "error", "memory", "crash", "timeout")


class FarthestElement(msgspec.Struct, frozen=True, kw_only=True):
    """The element of a case that is farthest from the truth, in units of its error bound."""

    output: str
    data_set: int
    difference: str
    """"value", "shape", "dtype", "type", "NaN made", "NaN lost", "infinity", "zero sign", "number of outputs"; "" where it is within."""
    ratio: float
    """Error over bound; infinite where it had to be exact, or is of another kind."""
    error: float = 0.0
    bound: float = 0.0
    place: tuple[int, ...] = ()
    got: float = 0.0
    wanted: float = 0.0
    words: str = ""
    """Where no numbers say it: the two shapes, or types."""


class BoundVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs against the truth and its error bounds.

    "within" only where every output was judged; "outside" where one that was judged is beyond its bound.
    """

    state: TruthState
    reason: str = ""
    """Why it is not judged, or the runtime's words where there is no answer."""
    worst: FarthestElement | None = None


class RuntimeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime on one case."""

    standard: StandardVerdict
    standard_words: str = ""
    truth: BoundVerdict
    blame: Literal["", "runtime", "undetermined"] = ""
    """Of what is outside: undetermined where the data that the case ships are outside too."""
    cause: str = ""
    """The registered cause that explains it."""
    seconds: float = 0.0


class SuiteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A case on all runtimes."""

    case: str
    kind: str
    operator: str
    operators: tuple[str, ...]
    opset: int
    data: BoundVerdict
    """Of the outputs that the case ships: outside is a finding about these."""
    runtimes: dict[str, RuntimeVerdict]

    @property
    def id(self) -> str:
        """What no other case is called."""
        return f"{self.kind}/{self.case}"


class RuntimeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime of a suite: what its process says of itself; `unavailable` is why it does not run here."""

    name: str
    facts: dict[str, str] = {}
    packages: tuple[str, ...] = ()
    unavailable: str = ""


class SuiteIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What all records of a run depend on: two under the same may stand in one table."""

    suite: str
    version: str
    """Of the onnx package that the cases come from."""
    actconform: str
    runtimes: tuple[RuntimeFacts, ...]

    def __str__(self) -> str:
        names = ", ".join(" ".join((each.name, *_versions(each))) for each in self.runtimes)
        return f"{self.suite} {self.version}, {names}, actconform {self.actconform}"


class SuiteReport(msgspec.Struct, kw_only=True):
    """A run of a suite."""

    identity: SuiteIdentity
    records: list[SuiteRecord]
    selected: int
    """How many cases were to be run."""
    left_out: list[str] = []
    """What the suite has and this run does not, and why; runtimes that do not run here."""
    notes: list[str] = []
    """What happened that is no case's."""
    ending: str = ""
    """Why it ended before its last case."""
    seconds: float = 0.0
    date: str = ""
    """UTC, in ISO 8601."""

    @property
    def conforms(self) -> bool:
        """Whether every case was run and none is a fault of a runtime."""
        return not self.ending and all(
            is_fine(verdict) for record in self.records for verdict in record.runtimes.values()
        )


def is_fine(verdict: RuntimeVerdict) -> bool:
    """Whether a verdict costs no exit code: within, refused, of a registered cause; what is not judged by its own limits."""
    if verdict.truth.state == "not judged":
        return verdict.standard == "passed"
    return verdict.truth.state in ("within", "refused") or bool(verdict.cause)


def _versions(runtime: RuntimeFacts) -> list[str]:
    return [runtime.facts[name] for name in runtime.packages if name in runtime.facts][:1]
