"""What a comparison finds: the classes, whose fault they can be, and where they are."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from actconform.types.dtypes import from_hex

if TYPE_CHECKING:
    from actconform.types.dtypes import FloatFormat

Place: TypeAlias = tuple[str, str, str, tuple[str, str]]  # class, regime, tensor, interval of a finding


class Blame(StrEnum):
    """Whose fault a finding is."""

    FRAMEWORK = "framework"
    EXPORTER = "exporter"
    RUNTIME = "runtime"
    OPTIMIZER = "runtime:optimizer"
    AUTHORED_GRAPH = "adapter"  # the graph that we write
    CONVENTION = "convention"  # both results are defensible
    UNDETERMINED = "undetermined"


class Severity(StrEnum):
    """What a finding means to somebody who uses the model, gravest first."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    CONVENTION = "convention"

    @property
    def rank(self) -> int:
        """Its place in the order: 0 is the gravest."""
        return list(Severity).index(self)


class FindingClass(StrEnum):
    """In what way an output differs from the truth, a graph from its subject, or a call from a function. The gravest first.

    The order is that among findings of equal severity.
    """

    CRASH = "crash"
    NONDETERMINISTIC = "nondeterministic"
    INVALID_MODEL = "invalid-model"
    NAMES = "names"
    SHAPE = "shape"
    NAN_LOST = "nan-lost"
    NAN_MADE = "nan-made"
    INF = "inf"
    SCALED_ERROR = "scaled-error"
    KINK = "kink"
    RANGE = "range"
    DTYPE = "dtype"
    PROPERTY = "property"
    MUTATES_INPUT = "mutates-input"
    POSITION_DEPENDENT = "position-dependent"
    MEMORY_GROWTH = "memory-growth"
    PLACEMENT = "placement"
    BIAS = "bias"
    FORMULA = "formula"
    TAIL = "tail"
    SUBNORMAL_FLUSH = "subnormal-flush"
    ZERO_SIGN = "zero-sign"


class Where(StrEnum):
    """Which inputs a finding is about."""

    ORDINARY = "ordinary"  # or every input, as of what is wrong with a graph or a call
    LARGE = "large"
    SPECIAL = "special"
    SUBNORMAL = "subnormal"


class ClassRow(NamedTuple):
    """What there is to know about a class of findings."""

    ordinary: Severity
    """How grave it can be at ordinary inputs, then at the others."""
    large: Severity
    special: Severity
    subnormal: Severity
    reason: str
    """Why it is that grave."""
    meaning: str
    """What was seen, in a sentence for people."""
    unit: str = ""
    """What `Finding.magnitude` counts: "scaled", "ulp" or "bound"; "" where the class has no size."""
    sized: bool = False
    """Whether its size may lower how grave it is."""
    of_call: bool = False
    """Whether it is about a call or a process: no graph can be the cause."""
    special_value: bool = False
    """Whether an operator's definition in the standard may demand it."""
    short: str = ""
    """Its name in a narrow cell; "" where the whole name is short enough."""

    def at(self, where: Where) -> Severity:
        """Return how grave it can be at some inputs."""
        return Severity(getattr(self, where.value))


CRITICAL, MAJOR, MINOR, CONVENTION = Severity
_ALWAYS_CRITICAL, _ALWAYS_MAJOR, _ALWAYS_MINOR = ((severity,) * 4 for severity in (CRITICAL, MAJOR, MINOR))
_VALUE = (CRITICAL, MAJOR, MAJOR, MAJOR)
_NUMBER = (CRITICAL, MAJOR, MAJOR, MINOR)
FIXED_SHAPE = "shape, of a graph"  # what the gates say of an exported graph's inputs, not of an output
WITHIN_LIMITS = "nondeterministic, within the limits"  # of answers that differ by no more than rounding

# The gravest class first: the order among findings of equal severity. Every class stands here.
CLASSES: dict[str, ClassRow] = {
    FindingClass.CRASH: ClassRow(
        *_ALWAYS_CRITICAL, "the process died, with everything else that ran in it", "the process died", of_call=True
    ),
    FindingClass.NONDETERMINISTIC: ClassRow(
        *_ALWAYS_CRITICAL,
        "the same call is right at one time and wrong at another; a number that is always wrong has a finding of its own",
        "the same call gives other outputs",
        of_call=True,
        short="random",
    ),
    FindingClass.INVALID_MODEL: ClassRow(
        *_ALWAYS_CRITICAL,
        "a runtime may refuse the graph, and the exporter raised no error",
        "the graph is no valid ONNX model",
        short="invalid",
    ),
    FindingClass.NAMES: ClassRow(
        *_ALWAYS_CRITICAL, "inputs or outputs are missing or have other names", "other inputs or outputs than expected"
    ),
    FindingClass.SHAPE: ClassRow(*_ALWAYS_CRITICAL, "an output has another shape", "another shape than expected"),
    FindingClass.NAN_LOST: ClassRow(
        *_VALUE,
        "a number hides a fault in what was computed before",
        "a number where NaN is expected",
        special_value=True,
    ),
    FindingClass.NAN_MADE: ClassRow(
        *_VALUE,
        "NaN spreads to everything that is computed from it",
        "NaN where a number is expected",
        special_value=True,
    ),
    FindingClass.INF: ClassRow(
        *_VALUE,
        "an infinity is wrong or missing, and becomes NaN",
        "an infinity is wrong or missing",
        special_value=True,
    ),
    FindingClass.SCALED_ERROR: ClassRow(
        *_NUMBER, "a wrong number", "the error is beyond its limit", unit="scaled", sized=True, short="error"
    ),
    FindingClass.KINK: ClassRow(
        *_NUMBER,
        "a slope that neither side has",
        "the derivative at a kink is outside its two sides",
        unit="scaled",
        sized=True,
    ),
    FindingClass.RANGE: ClassRow(
        *_NUMBER,
        "outside the range of the function: a logarithm of it fails",
        "a value outside the function's range",
        unit="ulp",
        sized=True,
    ),
    FindingClass.DTYPE: ClassRow(
        *_ALWAYS_CRITICAL, "a graph or an output has another element type", "another element type than expected"
    ),
    FindingClass.PROPERTY: ClassRow(
        *_ALWAYS_CRITICAL,
        "a property that users rely on does not hold at ordinary inputs",
        "outputs contradict each other",
    ),
    FindingClass.MUTATES_INPUT: ClassRow(
        *_ALWAYS_CRITICAL,
        "the caller's data are overwritten without a warning",
        "the input was written to",
        of_call=True,
        short="mutates",
    ),
    WITHIN_LIMITS: ClassRow(
        *_ALWAYS_MAJOR,
        "a run cannot be repeated; every output is within its limits",
        "the same call gives other outputs",
        of_call=True,
        short="random",
    ),
    FindingClass.POSITION_DEPENDENT: ClassRow(
        *_VALUE,
        "the length of an array changes the output",
        "the same input gives other outputs elsewhere in an array",
        of_call=True,
        short="position",
    ),
    FindingClass.MEMORY_GROWTH: ClassRow(
        *_ALWAYS_MAJOR,
        "a long run exhausts memory, files or threads; no number is wrong",
        "each call, or program, leaves memory, files, threads or processes behind",
        of_call=True,
        short="memory",
    ),
    FIXED_SHAPE: ClassRow(
        *_ALWAYS_MAJOR,
        "the graph is valid, and refuses every other size at the first call",
        "the graph takes one size alone",
    ),
    FindingClass.PLACEMENT: ClassRow(
        *_ALWAYS_MAJOR,
        "another device computed than the one selected",
        "nodes ran on another execution provider",
        of_call=True,
    ),
    FindingClass.BIAS: ClassRow(
        MAJOR,
        MINOR,
        MINOR,
        MINOR,
        "each number is within its limit, but their sum drifts",
        "errors lean to one side",
        unit="scaled",
        sized=True,
    ),
    FindingClass.FORMULA: ClassRow(
        CRITICAL,
        MINOR,
        MINOR,
        MINOR,
        "the error is not the one that the known formula explains",
        "the formula by which it is computed cannot give this",
        unit="bound",
        sized=True,
    ),
    FindingClass.TAIL: ClassRow(
        *_ALWAYS_MINOR,
        "relative accuracy is lost where the function is small",
        "relative accuracy is lost where the function is small",
        unit="ulp",
    ),
    FindingClass.SUBNORMAL_FLUSH: ClassRow(
        *_ALWAYS_MINOR,
        "numbers below the smallest normal one are read or returned as 0",
        "a subnormal number was taken or given as 0",
        short="flush",
    ),
    FindingClass.ZERO_SIGN: ClassRow(
        *(CONVENTION,) * 4, "the sign of a zero", "zero has the wrong sign", special_value=True
    ),
}
OF_UNIT = {
    unit: tuple(name for name, row in CLASSES.items() if row.unit == unit) for unit in ("scaled", "ulp", "bound")
}


class Interval(NamedTuple):
    """The inputs of a finding: the bit patterns of the least and the greatest, both NaN's where there is nothing else; "" nowhere."""

    first: str
    last: str

    def ends(self, fmt: FloatFormat) -> tuple[float, float]:
        """Return both ends as numbers. Raises ValueError or struct.error where they are no patterns of the format."""
        return from_hex(self.first, fmt), from_hex(self.last, fmt)

    def overlaps(self, interval: tuple[str, str]) -> bool:
        """Tell whether both have an input in common; what is nowhere overlaps what is nowhere."""
        places = [_place(pattern) for pattern in (*self, *interval)]
        if any(place is None for place in places):
            return tuple(self) == tuple(interval)
        low, high, other_low, other_high = (place or 0 for place in places)
        return low <= other_high and other_low <= high


NOWHERE = Interval("", "")


def _place(pattern: str) -> int | None:
    """Return where a bit pattern of a number stands among all of its format, in order of value, -0 where 0 is, NaN at both ends."""
    digits = pattern.removeprefix("0x")
    try:
        bits = int(digits, 16)
    except ValueError:
        return None
    sign = 1 << (4 * len(digits) - 1)
    return bits if bits < sign else sign - bits


class Worst(msgspec.Struct, frozen=True):
    """The worst element of a finding; `index` is flat within the regime, numbers are as compared."""

    input_hex: str
    index: int
    truth: float
    got: float
    ulp: float
    scaled: float


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """One classified way in which a measurement breaks its limit, over one interval of inputs."""

    class_: FindingClass
    count: int
    """How many elements show it."""
    regime: str
    tensor: str
    interval: Interval
    worst: Worst | None
    magnitude: float
    """How large it is, in the unit of its class; 0 for classes that are there or not, and 1 where answers differ beyond the limits."""
    deviation: str | None = None
    """The id of the registered cause that covers it, or "convention"."""
    blame: Blame = Blame.UNDETERMINED
    evidence: str = ""
    used: float = 0.0
    """How much of the cause's bound its worst element takes, from 0 to 1; 0 where the cause has none."""
    candidates: tuple[str, ...] = ()
    """Of a new finding the ids of causes of other routes that would explain every element: what `deviations adopt` writes."""
    severity: str = ""
    """One of `Severity`, as `verdict.severity` has it; "" in reports of before there were any."""
    relation: str = ""
    """Of a finding of the class `property` the metamorphic relation that does not hold."""

    @property
    def place(self) -> Place:
        """What tells it from the other findings of its case."""
        return (self.class_, self.regime, self.tensor, self.interval)

    def same(self, finding: Finding, *, anywhere: bool = False) -> bool:
        """Tell whether another run, or another evaluation, shows the same: class, tensor, regime and relation, at inputs in common.

        With `anywhere` the inputs are not compared. A relation is compared where both have one: old reports name none.
        """
        if (self.class_, self.tensor, self.regime) != (finding.class_, finding.tensor, finding.regime):
            return False
        if self.relation and finding.relation and self.relation != finding.relation:
            return False
        return anywhere or self.interval.overlaps(finding.interval)
