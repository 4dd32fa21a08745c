"""What a check tells: the one definition of check.json, read by the screen, the page and the issue text."""

from __future__ import annotations

from typing import Literal

import msgspec

from actconform.checking.agreement_result import Agreement  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.checking.noise_result import NoiseCheck  # noqa: TC001  likewise
from actconform.checking.trained.layer_matching import LayerMatch, Unmatched  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.checking.trained.weights import WeightCheck  # noqa: TC001  likewise

Numbers = tuple[int, ...]


class TensorCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor that a runtime showed, against the error bound of the node that gave it."""

    node: str
    op_type: str
    tensor: str
    shape: Numbers
    ratio: float
    """The largest error over its bound: above 1 rounding does not explain it; infinite where it had to be exact."""
    error: float
    """The largest absolute error."""
    bound: float
    """The bound at the element of the largest ratio; absolute."""
    place: Numbers = ()
    """Of that element."""
    got: float = 0.0
    wanted: float = 0.0
    """The true value there, given what the node read."""
    magnitude: float = 0.0
    """The largest magnitude of the true values."""
    lowest: float = 0.0
    highest: float = 0.0
    """The range of the values that the runtime gave, of those that are finite."""
    histogram: Numbers = ()
    """How many of its finite values lie in each of equal parts of that range."""
    looseness: float = 0.0
    """The largest bound over the magnitude: what a fault must exceed to be seen."""
    segment: tuple[str, ...] = ()
    """The nodes that the bound spans, the node itself last."""
    overflowed: int = 0
    """Elements that are infinite since the format ends below their true values."""
    nonfinite: int = 0
    """Elements that are NaN or infinite and should not be, or should be and are not."""
    wanted_shape: Numbers = ()

    @property
    def explained(self) -> bool:
        """Whether rounding explains it."""
        return self.ratio <= 1.0


class Unjudged(msgspec.Struct, frozen=True):
    """A node that is held against no bound, and why."""

    node: str
    op_type: str
    reason: str


class OutputCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One output of the model in one sample, end to end."""

    name: str
    sample: int
    shape: Numbers
    spreads: float = 0.0
    """The worst error in spreads; an output of integers has 0, or 1 where rounding may decide so, or infinity."""
    error: float = 0.0
    """The largest absolute error."""
    spread: float = 0.0
    """The mean spread of the tensor, absolute."""
    magnitude: float = 0.0
    """The largest magnitude of the truth."""
    place: Numbers = ()
    got: float = 0.0
    wanted: float = 0.0
    nonfinite: int = 0
    overflowed: int = 0
    decisions: int = 0
    """Rows in which the place of the largest element is compared."""
    decided_alike: int = 0
    unjudged: str = ""
    """Why it is not judged."""
    reason: str = ""
    """Why it is not explained, where numbers do not say it."""
    explained: bool = True
    tied: bool = False
    """Whether it is explained only since rounding decides, at some of `CheckResult.ties` or between levels of a quantization, and went
    another way here."""


class LevelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one sample with intermediate tensors marked as outputs, at one optimization level."""

    name: str
    """Of the level; "" for a runtime that has none."""
    sample: int
    marks: Literal["all", "surviving"]
    """Which tensors were marked: all, or those that survive the runtime's own optimization."""
    tensors: list[TensorCheck] = []
    unjudged: list[Unjudged] = []
    moved: tuple[str, ...] = ()
    """Final outputs that the marks changed: what they show is then not what runs without them."""
    failure: str = ""
    """Why there was no such run."""

    @property
    def loosest(self) -> float:
        """The largest bound of all tensors over the magnitude of the tensor: what a fault must exceed to be seen."""
        return max((tensor.looseness for tensor in self.tensors), default=0.0)


Blame = Literal[
    "framework", "exporter", "graph", "runtime", "runtime:optimizer", "convention", "version", "undetermined"
]


class ModelFault(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing that rounding does not explain: where, how much, and whose it is."""

    blame: Blame
    node: str
    op_type: str
    sample: int
    level: str = ""
    tensor: TensorCheck | None = None
    output: OutputCheck | None = None
    words: str = ""
    """Of a graph that is at fault as it is written: what the node reads or gives that it may not."""
    segment: tuple[str, ...] = ()
    layer: str = ""
    """The layer of the trained model that the node belongs to, where there is one beside it."""
    source: str = ""
    """The line of the user's program from which the exporter made the node, where it kept it."""
    evidence: tuple[str, ...] = ()
    """Sentences: what shows it."""
    cause: str = ""
    """The id of the registered cause that explains it; the fault is the runtime's all the same."""


class RuntimeCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What one runtime did with the model."""

    name: str
    facts: dict[str, str] = {}
    status: Literal["explained", "not explained", "at fault", "not judged", "failed", "unavailable"]
    """`at fault`: the graph itself, by `fault`, whatever computes it. `not judged`: it answered, and nothing of it can be evaluated here. `failed`: it refused the model, died, gave no answer in time, or gave one of which nothing could be judged."""
    reason: str = ""
    """Of a failure, in the runtime's words where it has any."""
    outputs: list[OutputCheck] = []
    levels: list[LevelCheck] = []
    unsteady: tuple[str, ...] = ()
    """Outputs that differed between two calls with the same inputs."""
    mutated: tuple[str, ...] = ()
    """Inputs that the runtime changed in place."""
    fault: ModelFault | None = None
    seconds: float = 0.0


class TrainedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a trained model lies in the graph: its layers and weights."""

    source: str
    """As the user names it."""
    framework: str
    """The name of its column among the runtimes."""
    about: str = ""
    matches: list[LayerMatch] = []
    """Tensors that the trained model and the graph share, in the order of the graph."""
    unmatched: list[Unmatched] = []
    """Layers without a partner in the graph, and why."""
    fused: tuple[str, ...] = ()
    """Sentences on layers that the graph has as one."""
    layer_of: dict[str, str] = {}
    """By node of the graph the layer that it belongs to."""
    weights: list[WeightCheck] = []
    """What became of each trained weight."""
    foreign: tuple[str, ...] = ()
    """Weights of the graph that are no trained ones."""
    notes: tuple[str, ...] = ()


class SampleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One set of inputs."""

    origin: str
    """Where it comes from: a file, or how it was drawn."""
    shapes: dict[str, Numbers] = {}
    drawn: dict[str, str] = {}
    """By input how it was drawn."""


class Conditioning(msgspec.Struct, frozen=True, kw_only=True):
    """What the graph alone makes of an output, whatever computes it."""

    output: str
    sample: int
    spread: float
    magnitude: float
    ill_conditioned: bool = False
    """Whether rounding alone leaves fewer than a third of the format's digits."""
    overflows: str = ""
    """The first node whose true values lie beyond the range of its format."""


class RoundingTie(msgspec.Struct, frozen=True, kw_only=True):
    """A step function of the graph, as a cast to integers or a comparison, some of whose inputs lie within their own rounding of its jump.

    The truth goes the way of an implementation that rounds every operator correctly.
    """

    node: str
    op_type: str
    sample: int
    elements: int
    """How many lie there."""
    size: int
    """Of how many."""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """The range of one initializer."""

    name: str
    shape: Numbers
    dtype: str
    lowest: float
    highest: float


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check of one model."""

    model: str
    sha256: str
    opset: int
    nodes: int
    """Of the flat graph of the first sample."""
    operators: dict[str, int] = {}
    samples: list[SampleFacts] = []
    runtimes: list[RuntimeCheck] = []
    """The columns: trained models first, then runtimes, then saved outputs, and the graph itself where it is at fault as it is written."""
    trained: list[TrainedCheck] = []
    """The trained models beside the graph."""
    agreement: list[Agreement] = []
    """Over a data set, of each column beside the first trained model, or the graph in float64."""
    noise: NoiseCheck | None = None
    """Of a graph in low precision: what its format is expected to do to each layer, and what came."""
    exporter: str = ""
    """What made the graph of a trained model just now; "" for a file of the user."""
    graph: list[Conditioning] = []
    ties: list[RoundingTie] = []
    """Where rounding decides."""
    weights: list[Weight] = []
    answered: tuple[str, ...] = ()
    """Nodes that cannot be evaluated here: the runtime's answer was taken."""
    notes: tuple[str, ...] = ()
    seed: int | None = None
    command: str = ""
    """The command line that makes the check again from the folder in which it was made; "" where something of it was in memory."""
    actconform: str = ""
    seconds: float = 0.0

    @property
    def explained(self) -> bool:
        """Whether some runtime answered, and rounding explains every answer."""
        answered = [runtime for runtime in self.runtimes if runtime.status in ("explained", "not explained")]
        return bool(answered) and all(runtime.status == "explained" for runtime in self.runtimes)
