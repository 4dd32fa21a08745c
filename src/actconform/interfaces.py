"""What a backend is: the classes that a plugin subclasses. Nothing here imports a framework, numpy or onnx."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from actconform.types import Support

if TYPE_CHECKING:
    from actconform.types import Artifact, Bundle, Case, Kernel


class Unsupported(Exception):  # noqa: N818  an outcome, not a fault
    """Raised by a backend that does not implement what was asked, in its own words: the case becomes UNSUPPORTED."""


class Unavailable(Exception):  # noqa: N818  an outcome, not a fault
    """Raised by `facts` when a package, device or library is missing, naming it and the mend: all cases become UNAVAILABLE."""


class Program(ABC):
    """A kernel or model, built or loaded, ready to be called.

    `implementation` says what computes: "torch.nn.functional.gelu", or "composition: x * sigmoid(1.702 x)" where the
    framework has no function of its own. bf16 tensors are numpy arrays of ml_dtypes.bfloat16, in and out.
    """

    implementation: str = ""

    @abstractmethod
    def forward(self, inputs: Bundle) -> Bundle:
        """Return the outputs for `inputs`, leaving `inputs` as they are."""

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` for every differentiable input: the cotangents of the outputs pulled back to the inputs."""
        raise Unsupported("computes no gradients")

    def close(self) -> None:
        """Free what the program holds. Called once, after the last call."""


class Backend(ABC):
    """What computes: a framework builds programs from subjects, a runtime loads exported graphs.

    One instance lives in one worker process. Import the framework inside the methods, never at module level:

        class NumpyBackend(Backend):
            name = "numpy"
            kind = "framework"

            def facts(self):
                import numpy
                return {"numpy": numpy.__version__}

            def build(self, kernel, dtype):
                if kernel.name != "relu":
                    raise Unsupported(f"numpy has no {kernel.name}")
                return Relu()
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["framework", "runtime"]]

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Return whatever could explain a number (versions, device, threads); raise `Unavailable` if it cannot run here."""

    def supports(self, case: Case) -> Support:
        """Say at once, without building, whether the case is taken; "yes" promises nothing about `build`."""
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """For a framework: the kernel as a program of its own functions; raise `Unsupported` where it has none."""
        raise Unsupported(f"{self.name} builds nothing: it loads graphs")

    def load(self, artifact: Artifact, dtype: str) -> Program:
        """For a runtime: the graph as a program; raise `Unsupported` in the runtime's words where it refuses the graph."""
        raise Unsupported(f"{self.name} loads no graphs: it builds natively")
