"""A user's trained model, open in the worker of its framework: the class that a plugin subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from actconform.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actconform.types.trained import LayerCall, OpenedModel, RunMode, TrainedRun

    Arrays = Mapping[str, NDArray[Any]]


class TrainedModel(ABC):
    """A trained model, open. Calls leave no trace: weights, running statistics and random states are as before.

    Arrays go in and out by name, bfloat16 as ml_dtypes.bfloat16. Methods raise `Unsupported` for what the model cannot do, `SourceError` for
    what the user did wrong, and whatever the framework raises.
    """

    @property
    @abstractmethod
    def about(self) -> OpenedModel:
        """What it is and takes."""

    @abstractmethod
    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        """Return the outputs by name, with `layers` the values of all layers too, from one run.

        Outputs without names are "output_0" and so on; those of a dict have its keys, nested ones joined by ".". Float inputs are converted
        to what the precision needs. Layers that run in place are recorded as they were when they ended.
        """

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode) -> dict[str, NDArray[Any]]:
        """Return the cotangents of outputs, by output name, pulled back: "d_NAME" of each float input and each parameter."""
        raise Unsupported("computes no gradients")

    def layer_call(self, inputs: Arrays, layer: str) -> LayerCall:
        """Return the call of `layer`, named as in `LayerRecord`, in a run; of a function, of the layer that calls it.

        Of a layer that is not called as a whole, or whose arguments no program can write down, the call of the next layer around it.
        Raises `Unsupported` where there is none.
        """
        raise Unsupported("shows no calls of layers")

    @abstractmethod
    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return all weights and buffers by name, in the dtypes in which they are stored; tied ones under each of their names."""

    def close(self) -> None:
        """Free what it holds."""
