"""A model as it was trained: how a user names it, what it takes, how it is run, and the values of its layers."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec
from numpy.typing import NDArray  # noqa: TC002  msgspec reads the annotations when it decodes

from actconform.types.lint import TrainingLoss  # noqa: TC001  as above

Dims: TypeAlias = tuple[int | str | None, ...]
SourceKind = Literal["factory", "keras", "saved-model", "tflite", "pt2", "torchscript", "onnx"]
Precision = Literal["native", "float64", "float16", "bfloat16", "autocast-float16", "autocast-bfloat16"]
ALL_PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class TrainedSource(msgspec.Struct, frozen=True):
    """A trained model as the user names it."""

    kind: SourceKind
    text: str
    """"package.module:factory", or the path of a file or folder."""
    folder: str = ""
    """From which modules are imported: the directory in which the user is."""
    trusted: bool = False
    """Whether the user allows a file to run code of its own."""


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output of a trained model."""

    name: str
    dtype: str
    """NumPy's or ml_dtypes' name: "float32", "int64", "bfloat16"; empty where it is not known."""
    dims: Dims | None = None
    """A size, the name of one, or None where it is open; None altogether where the rank is open."""


class RunMode(msgspec.Struct, frozen=True):
    """How a trained model is run.

    `precision` native: as it was trained. float64: weights widened, all computed in float64; inputs are widened too. float16, bfloat16: weights
    and float inputs rounded. autocast-*: weights as trained, the framework's automatic mixed precision.
    `training`: Dropout and BatchNorm as in training; running statistics and random states are left as they were.
    """

    precision: Precision = "native"
    training: bool = False


class LayerRecord(msgspec.Struct, frozen=True):
    """One call of a layer, or of a function of the framework, in a run."""

    name: str
    """The path of the layer ("encoder.3.norm"), "" for the model itself; a function is "PATH:gelu", a second call of the same "NAME#2"."""
    kind: str
    """"torch.nn.modules.normalization.LayerNorm", "function gelu", "keras.src.layers.core.dense.Dense"."""
    inputs: tuple[int, ...]
    """Places in `TrainedRun.tensors` of the tensors that it read, as far as they were recorded."""
    outputs: tuple[int, ...]
    """Likewise of the tensors that it gave."""
    parameters: tuple[str, ...] = ()
    """Names of the parameters and buffers that belong to the layer itself, not to a layer within."""


class TrainedRun(msgspec.Struct, kw_only=True):
    """One run: outputs by name, and where it was asked for the calls of layers in the order in which they ended."""

    outputs: dict[str, NDArray[Any]] = {}
    layers: list[LayerRecord] = []
    tensors: list[NDArray[Any]] = []
    """Each distinct tensor once, in the framework's own layout; the inputs of the model first."""


class LayerCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a layer in a run, such that a program can make it again for the layer alone."""

    path: str
    """Of the layer; "" for the model itself."""
    about: str
    """The layer as its framework shows it: "LayerNorm((8,), eps=1e-05)"."""
    around: str | None
    """The path of the layer around it; None for the model itself."""
    arguments: str
    """Python source of the arguments, with `input_0` and so on for tensors: "input_0, mask=input_1, need_weights=False"."""
    inputs: tuple[NDArray[Any], ...]
    outputs: tuple[NDArray[Any], ...]
    """What the layer alone gives for `inputs`, flat."""
    exact: tuple[NDArray[Any], ...] = ()
    """The same in float64; empty where the framework cannot compute it so."""


class OpenedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a framework says of a model that it has opened."""

    framework: str
    """The backend's name."""
    about: str
    """The class and size, for people: "Net (torch.nn.Module), 1,204 weights"."""
    inputs: tuple[TensorSpec, ...] = ()
    """In the order in which the model takes them; empty where that is not known without example inputs."""
    example: dict[str, NDArray[Any]] = {}
    """Inputs that the factory gave beside the model, by name; empty where it gave none."""
    parameters: tuple[TensorSpec, ...] = ()
    precisions: tuple[Precision, ...] = ("native",)
    """What `RunMode.precision` may be."""
    trainable: bool = False
    """Whether `RunMode.training` may be True."""
    differentiable: bool = False
    """Whether it gives gradients."""
    exporters: tuple[str, ...] = ()
    """Names of the exporters that take it."""
    notes: tuple[str, ...] = ()
    losses: tuple[TrainingLoss, ...] = ()
    """By which it was trained, as far as the framework knows: for `actconform lint`."""
