"""PyTorch's own compiler: the functions of the torch backend by way of torch.compile, which is inductor, on the CPU."""

from __future__ import annotations

import os
import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from actconform import Library, Unavailable
from actconform.plugin.framework import Implementation, fate_of_subnormals
from actconform.plugin.training_loop import train
from actconform_torch.backend import TorchBackend, TorchProgram
from actconform_torch.kernels import implement
from actconform_torch.models import TorchModel
from actconform_torch.torch_module import import_torch
from actconform_torch.training import TorchTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Kernel, Model, Program
    from actconform.types.trained import SourceKind
    from actconform.types.training_run import TrainingRecord, TrainingTask

BY = ", by torch.compile"  # after what computes
SHAPES = 64  # how often one function is compiled at most: all shapes of a case, where each needs code of its own


class TorchCompile(TorchBackend):
    """torch.compile of what `torch` calls, values and gradients, by inductor in its default mode, on the CPU.

    `fullgraph=True`, since after a graph break or too many recompilations torch would run eagerly and say nothing. Kernels have
    `dynamic=True`: lengths are symbols, and one program serves all but 1, which torch always compiles for itself, where no
    function makes a number of its width (one_hot, glu). Models have `dynamic=False`: inductor 2.13 fails on a pooled batch that is
    a symbol. Code is kept in a folder for each set of vector instructions, within TORCHINDUCTOR_CACHE_DIR or torch's own folder
    among the temporary ones: torch takes code that was made for others, and half of each result is then never written.
    """

    name: ClassVar[str] = "torch-compile"
    compiles_per_shape: ClassVar[bool] = True
    extra: ClassVar[bool] = True
    opens: ClassVar[tuple[SourceKind, ...]] = ()  # users' models are opened by torch itself

    def facts(self) -> dict[str, str]:
        """Return torch's facts, the compiler, the instructions that it is set to use, and the fate of subnormals in compiled code.

        Raises `Unavailable` without torch, without a C++ compiler, and in inductor's words where it cannot compile a trial.
        """
        facts = super().facts()
        compiler, instructions = _toolchain()
        torch = import_torch()
        try:
            half = own(lambda x: x * 0.5, dynamic=True)(torch.tensor([2e-40]))
        except Exception as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise Unavailable(f"torch.compile with {compiler} fails: {words[0]}") from error
        return facts | {
            "inductor": "default mode, fullgraph; kernels dynamic, models not",
            "compiler": compiler,
            "vector_instructions": instructions,
            "subnormals": fate_of_subnormals(half.item()),
        }

    def library(self) -> Library:
        """Return the same functions, each compiled."""
        from actconform_torch.primitives import primitives

        return Library("torch-inductor", ("torch",), primitives(partial(own, dynamic=True)))

    def build(self, kernel: Kernel, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the kernel as a program; it is compiled at the first call of a kind, forward or backward."""
        import_torch()
        text, function, _ = implement(kernel)
        return TorchProgram(kernel, Implementation(text + BY, own(function, dynamic=True)), self.device)

    def build_model(self, model: Model, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the model, compiled as a whole for what is asked of it: its outputs, its loss, or all its layers."""
        import_torch()
        program = TorchModel(model, self.device, partial(own, dynamic=False))
        program.implementation += BY
        return program

    def train(self, task: TrainingTask) -> TrainingRecord:
        """Train as `torch` does, the loss and its gradients compiled as a whole; torch.optim's step is called as it is."""
        import_torch()
        trainer = TorchTrainer(task, self.device, partial(own, dynamic=False))
        trainer.implementation += BY
        return train(trainer, task)


def own(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
    """Return `function` by torch.compile, with code of its own.

    torch keeps what it compiled with the code object, and counts it there: closures of one definition share that count.
    """

    def call(*given: Any) -> Any:
        return function(*given)

    call.__code__ = call.__code__.replace()
    torch = import_torch()
    torch._dynamo.config.recompile_limit = SHAPES  # noqa: SLF001  has no public place
    compiled: Callable[..., Any] = torch.compile(call, fullgraph=True, dynamic=dynamic)
    return compiled


def _toolchain() -> tuple[str, str]:
    """Return the C++ compiler and the vector instructions that inductor takes; raise `Unavailable` where there is none."""
    # Compiling in processes of its own would leave them behind when a worker is ended; there is one kernel at a time.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler
    from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise Unavailable(
            f"torch.compile needs a C++ compiler: {error}; install g++ (apt install g++, dnf install gcc-c++, "
            "xcode-select --install), or name one in CXX"
        ) from error
    instructions = "none" if pick_vec_isa() == invalid_vec_isa else str(pick_vec_isa())
    _keep_apart(instructions)
    version = re.search(r"version (\S+)", get_compiler_version_info(compiler))
    return " ".join([compiler, *(version.groups() if version else ())]), instructions


@cache
def _keep_apart(instructions: str) -> None:
    """Have torch keep its code apart from what was compiled for other instructions."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder = Path(cache_dir(), "actconform-" + instructions.replace(" ", "-"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
