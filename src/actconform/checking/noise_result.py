"""What a check tells of a graph in low precision: layer by layer the truth, the noise that its format is expected to make, and what came."""

from __future__ import annotations

import msgspec

Numbers = tuple[int, ...]


class NoiseGot(msgspec.Struct, frozen=True, kw_only=True):
    """What one runtime, or the framework at that precision, gave of one tensor."""

    name: str
    """Of the column: "ort-cpu", "torch float16"."""
    error: float
    """Root mean square of got less truth, where truth and all draws are numbers of the format; absolute."""
    ratio: float
    """The error over the expected noise, at least one rounding; infinite where NaN or infinities came that no draw has."""
    nonfinite: int = 0
    """Elements that are NaN or infinite, and whose truth is a number of the format."""


class NoiseLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the graph, of floats or of quantized numbers; all numbers in the units of the floats.

    Elements whose truth is no number of the format (NaN, infinite, beyond the range) are left out of the root mean squares.
    """

    node: str
    """That computes it: of what a Cast makes of a wider tensor the node before the Cast."""
    op_type: str
    tensor: str
    layer: str = ""
    """The layer of the trained model, where there is one beside the graph."""
    format: str
    """"f16", "bf16", "f32", "int8"."""
    shape: Numbers
    magnitude: float
    """Root mean square of the truth."""
    largest: float
    """The largest magnitude of the truth, also beyond the format's range."""
    smallest: float
    """The smallest magnitude of the truth that is not 0; 0 where all are."""
    noise: float
    """The expected error: root mean square over elements and draws of rounding; infinite where no draw leaves a number."""
    lost_bits: float = 0.0
    """By how many bits noise over magnitude is larger than in what the node read, or than one rounding."""
    conversion: float | None = None
    """Root mean square of the graph in float64 less the truth, where the truth is that of another model: what the conversion moved."""
    conversion_ratio: float = 0.0
    """That over the expected noise, at least one rounding."""
    got: list[NoiseGot] = []
    overflowed: int = 0
    """Elements whose truth is beyond the range of the format."""
    underflowed: int = 0
    """Elements that are 0 in the format and whose truth is not."""
    subnormal: int = 0
    """Elements that have fewer digits in the format since they are below its normal numbers."""
    lost: int = 0
    """Elements that are NaN or infinite in a draw, and whose truth is a number of the format."""
    undefined: int = 0
    """Elements whose truth itself is NaN."""
    step: float = 0.0
    """Of a quantized tensor: the largest step between two of its numbers."""
    clipped: int = 0
    """Elements that the quantization cuts by more than half a step."""
    clip_loss: float = 0.0
    """Root mean square over all elements of what is cut."""
    codes_used: float = 1.0
    """The share of the quantized range that the values span."""

    @property
    def place(self) -> str:
        """Where it is, for people: the layer and the operator."""
        named = self.layer and self.layer != self.node
        return f"{self.layer} ({self.op_type} {self.node})" if named else f"{self.node} ({self.op_type})"

    @property
    def relative(self) -> float:
        """The expected noise over the magnitude; 0 where all is 0."""
        return self.noise / self.magnitude if self.magnitude > 0 else 0.0


class NoiseCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A graph in low precision on one sample."""

    format: str
    """The narrowest that it computes in: "f16", "bf16", "int8"."""
    truth: str
    """What the truth is, for people: "the graph in float64", "model.onnx in float64"."""
    sample: int = 0
    layers: list[NoiseLayer] = []
    """In the order of the graph."""
    range_lost: str = ""
    """The node at which the range of the format is left first, with effect on later layers or on an output."""
    precision_lost: tuple[str, ...] = ()
    """Nodes that lose more than LOST_BITS bits, those that lose most first."""
    coarse: tuple[str, ...] = ()
    """Nodes whose quantized numbers are so far apart that a quarter of the codes would do."""
    clipping: tuple[str, ...] = ()
    """Nodes of which clipping takes LOST_BITS bits more than the steps do."""
    converted_wrong: str = ""
    """The first node at which the graph in float64 is further from the truth than the format explains."""
    beyond: dict[str, str] = {}
    """By column the first node whose error is more than the format's noise; columns that are within it are left out."""
    summary: tuple[str, ...] = ()
    """Sentences."""

    @property
    def is_the_model(self) -> bool:
        """Whether the graph is the model of the truth brought into the format, whatever noise that makes.

        Coarse and clipping quantizations are choices of whoever calibrated it, on other data than this sample perhaps: they are told, and
        are no fault.
        """
        return not (self.converted_wrong or self.range_lost)
