"""Small backends, one honest of each kind; every other one breaks one clause of the contract."""

from __future__ import annotations

import ctypes
import os
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Backend, Kernel, Program, Support, Unavailable, Unsupported, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Artifact, Case

    Arrays = dict[str, NDArray[Any]]

FE_UPWARD = 0x800  # of x86-64


class Relu(Program):
    """Right, but for `lie`, which is given the inputs and the right answer."""

    implementation = "numpy"

    def __init__(self, lie: Callable[[Arrays, Any], Arrays] | None = None) -> None:
        self.lie = lie

    def forward(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        y = np.where(x <= 0, x.dtype.type(0), x)
        return self.lie(inputs, y) if self.lie else {"y": y}

    def vjp(self, inputs: Arrays, cotangents: Arrays) -> Arrays:
        return {"d_x": cotangents["y"] * (inputs["x"] > 0)}


class Honest(Backend):
    name = "honest"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {"numpy": np.__version__, "threads": "1"}

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if kernel.name != "relu":
            raise Unsupported(f"no {kernel.name} here")
        return self.program(dtype)

    def program(self, dtype: str) -> Program:
        return Relu(self.lie)

    lie: Any = None


class RaisesLater(Honest):
    name = "raises-later"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        raise ZeroDivisionError("after all")


class KnowsAll(Honest):
    name = "knows-all"

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return Relu()


class TooModest(Honest):
    name = "too-modest"

    def supports(self, case: Case) -> Support:
        return Support(yes=case.dtype != "f16", reason="no halves")


class Slow(Honest):
    name = "slow"

    def supports(self, case: Case) -> Support:
        time.sleep(0.2)
        return Support(yes=True)


class RaisesOther(Honest):
    name = "raises-other"

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return {"relu": Relu()}[kernel.name]


class Silent(Honest):
    name = "silent"

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if dtype == "bf16":
            raise Unsupported("")
        return super().build(kernel, dtype)


class Dies(Honest):
    name = "dies"

    def program(self, dtype: str) -> Program:
        if dtype == "bf16":
            os._exit(7)
        return Relu()


class Refuses(Honest):
    name = "refuses"

    def build(self, kernel: Kernel, dtype: str) -> Program:
        raise Unsupported("not today")


class OtherName(Honest):
    name = "other-name"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        return {"out": y}


class OtherShape(Honest):
    name = "other-shape"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        return {"y": y[:8]}


class OtherDtype(Honest):
    name = "other-dtype"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        return {"y": y.astype(np.float32)}


class Mutates(Honest):
    name = "mutates"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        inputs["x"][:1] = 3
        return {"y": y}


class Wavers(Honest):
    name = "wavers"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        return {"y": y + np.random.default_rng().integers(1 << 7).astype(y.dtype)}


class OfItsProcess(Honest):
    name = "of-its-process"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        return {"y": y + y.dtype.type(os.getpid() % 1000)}


class BadClose(Honest):
    name = "bad-close"

    def program(self, dtype: str) -> Program:
        class Stuck(Relu):
            def close(self) -> None:
                raise RuntimeError("cannot free")

        return Stuck()


class NumbersAsFacts(Honest):
    name = "numbers-as-facts"

    def facts(self) -> dict[str, str]:
        return {"numpy": np.__version__, "threads": 1}  # type: ignore[dict-item]


class PoorFacts(Honest):
    name = "poor-facts"

    def facts(self) -> dict[str, str]:
        return {"process": f"number {os.getpid()}"}


class SomeDraws(Honest):
    name = "draws"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002
        return {"y": y}


class Errors(Honest):
    name = "hides-errors"

    def program(self, dtype: str) -> Program:
        np.seterr(over="raise")
        return Relu()


class Rounds(Honest):
    name = "rounds-up"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        ctypes.CDLL("libm.so.6").fesetround(FE_UPWARD)
        return {"y": y}


class Flushes(Honest):
    name = "flushes"

    def lie(self, inputs: Arrays, y: Any) -> Arrays:
        import torch

        torch.set_flush_denormal(True)
        return {"y": y}


class FlushesAtOnce(Honest):
    name = "flushes-at-once"

    def facts(self) -> dict[str, str]:
        import torch

        torch.set_flush_denormal(True)
        return super().facts()


class DefaultDtype(Honest):
    name = "default-dtype"

    def facts(self) -> dict[str, str]:
        import torch

        torch.set_default_dtype(torch.float64)
        return super().facts()


class HonestRuntime(Backend):
    name = "honest-runtime"
    kind = "runtime"
    placed = ""

    def facts(self) -> dict[str, str]:
        return {"numpy": np.__version__, "threads": "1"}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        import onnx

        operators = {node.op_type for node in onnx.load_from_string(artifact.model).graph.node}
        if operators != {"Relu"}:
            raise Unsupported(f"cannot load {operators}")
        program = Relu()
        if self.placed:
            program.placement = {self.placed: ("Relu",)}
        return program


class RightPlace(HonestRuntime):
    name = "right-place"
    provider = placed = "Accelerator"


class ElsewhereRuntime(HonestRuntime):
    name = "elsewhere"
    provider = "Accelerator"
    placed = "CPU"


class Untold(HonestRuntime):
    name = "untold"
    provider = "Accelerator"


class LoadsAnything(HonestRuntime):
    name = "loads-anything"

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return Relu() if b"Unknown" in artifact.model else super().load(artifact, dtype)


class Evaluated(Program):
    """A graph under onnx's evaluator; where it is `undone` by marks, its last output is another."""

    def __init__(self, artifact: Artifact, *, undone: bool) -> None:
        from onnx.reference import ReferenceEvaluator

        self.evaluator = ReferenceEvaluator(artifact.model)
        self.undone = undone and len(self.evaluator.output_names) > 1

    def forward(self, inputs: Arrays) -> Arrays:
        outputs = dict(zip(self.evaluator.output_names, self.evaluator.run(None, inputs), strict=True))
        return outputs | {"y": outputs["y"] + np.float32(1e-7)} if self.undone else outputs


class FusingRuntime(HonestRuntime):
    name = "fusing"
    levels = ("nothing",)
    undone = False

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        if b"gated" in artifact.model:
            return Evaluated(artifact, undone=self.undone and not level)
        return super().load(artifact, dtype)

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        return "positive", "y"


class Unfuses(FusingRuntime):
    name = "unfuses"
    undone = True


class Misnames(FusingRuntime):
    name = "misnames"

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        return ("y", "fused_7") if level else ("y",)


class NamesNothing(FusingRuntime):
    name = "names-nothing"

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        return None  # type: ignore[return-value]


class NotInstalled(Honest):
    name = "not-installed"

    def facts(self) -> dict[str, str]:
        raise Unavailable("honestlib is not installed: pip install honestlib")


class NoStart(Honest):
    name = "no-start"

    def facts(self) -> dict[str, str]:
        os._exit(3)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [
            one
            for one in globals().values()
            if isinstance(one, type) and issubclass(one, Backend) and "name" in vars(one)
        ]
