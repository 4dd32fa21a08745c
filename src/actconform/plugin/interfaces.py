"""What a backend and an exporter are: the classes that a plugin subclasses. Nothing here imports a framework, numpy or onnx."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from actconform.errors import Unsupported
from actconform.types import Support

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.plugin.trained_model import TrainedModel
    from actconform.types import Artifact, Bundle, Case, Kernel
    from actconform.types.cause import Cause
    from actconform.types.model import Model
    from actconform.types.report import Report, Trend
    from actconform.types.trained import SourceKind, TrainedSource
    from actconform.types.training_run import TrainingRecord, TrainingTask


class Library(NamedTuple):
    """What a backend computes elementary functions with, to be measured by `make accuracy`.

    `when` names the facts by which the library is known, versions first. `primitives` maps names of `actconform.accuracy` to functions of
    numpy arrays, which give such of the same shape and dtype; a runtime is measured with graphs of one node, and needs none.
    """

    name: str
    when: tuple[str, ...]
    primitives: Mapping[str, Callable[..., NDArray[Any]]] = {}


_RENAMED = {"taps": "intermediates", "ready": "prepare_call"}  # methods of a Program before 0.2; for one release


class Program(ABC):
    """A kernel or model, built or loaded, ready to be called.

    `implementation` says what computes: "torch.nn.functional.gelu", or "composition: x * sigmoid(1.702 x)" where the
    framework has no function of its own. bf16 tensors are numpy arrays of ml_dtypes.bfloat16, in and out.
    """

    implementation: str = ""
    placement: Mapping[str, tuple[str, ...]] = {}
    """For each execution provider the operators that it was given; empty where the runtime does not say."""

    @abstractmethod
    def forward(self, inputs: Bundle) -> Bundle:
        """Return the outputs for `inputs`, leaving `inputs` as they are."""

    def expect(self, calls: Sequence[Bundle]) -> None:
        """Take note of the inputs of the calls of `forward` that come next, in order; optional, does nothing by default.

        A program that starts a process for its calls can make all of them in one. Equal inputs that come twice are to be computed twice.
        """

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` for every differentiable input: the cotangents of the outputs pulled back to the inputs."""
        raise Unsupported("computes no gradients")

    def intermediates(self, inputs: Bundle) -> Bundle:
        """Return the value of every layer of a model by its name, from one run of the same program, channels last.

        A layer that is missing is a finding; a program that shows none raises `Unsupported`, as this one does.
        """
        raise Unsupported("shows no values of layers")

    def statistics(self, inputs: Bundle) -> Bundle:
        """Return the running statistics of a model in training after one call of `forward`, by the parameter that each replaces.

        These are "LAYER.mean" and "LAYER.variance" of every batch normalization; nothing of them is left in the program. A program
        that gives none raises `Unsupported`, as this one does: then nothing is said against it.
        """
        raise Unsupported("gives no running statistics")

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], object]:
        """Return what computes once, to be timed: `forward`, or with cotangents `vjp`, without the way in and out.

        Cotangents that are empty are cotangents: only None asks for `forward`. The tensors lie where the program wants them
        beforehand, and outputs stay where they come. A call returns when all outputs are computed, on whatever device. By
        default the conversions of `forward` and `vjp` are timed too.
        """
        if cotangents is None:
            return lambda: self.forward(inputs)
        return lambda: self.vjp(inputs, cotangents)

    def close(self) -> None:
        """Free what the program holds. Called once, after the last call."""

    def __init_subclass__(cls) -> None:
        """Give methods that a subclass defines by their old names their new ones too, with a DeprecationWarning."""
        super().__init_subclass__()
        for old, new in _RENAMED.items():
            if old in vars(cls):
                warnings.warn(
                    f"Program.{old} is {new} now: rename it in {cls.__name__}", DeprecationWarning, stacklevel=2
                )
                setattr(cls, new, vars(cls)[old])

    def __getattr__(self, name: str) -> Any:
        """Return a method by its old name, with a DeprecationWarning."""
        if name not in _RENAMED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        warnings.warn(f"Program.{name} is {_RENAMED[name]} now", DeprecationWarning, stacklevel=2)
        return getattr(self, _RENAMED[name])


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
    levels: ClassVar[tuple[str, ...]] = ()
    """Optimization levels of a runtime, the one that optimizes nothing first; empty where there is no choice."""
    optimizers: ClassVar[tuple[str, ...]] = ()
    """Names of the optimizations that a runtime can leave out, one or several."""

    loads_files: ClassVar[bool] = False
    """Whether `load` and `surviving_tensors` read a graph from `Artifact.file` where that is given, and `Artifact.model` is empty;
    for others the file is read into `model`. Graphs of more than 2 GiB come as files alone."""
    opens: ClassVar[tuple[SourceKind, ...]] = ()
    """The kinds of trained models that `open_trained` takes."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What pip calls the packages that compute, the usual one first: of one of them NAME@VERSION has another version."""

    provider: ClassVar[str] = ""
    """The execution provider that every node must be given, or the case has a `placement` finding; empty for no such claim."""

    thread_safe: ClassVar[bool] = True
    """Whether one program may be called by several threads at once, as a server calls it; a run tries it. False where the framework's
    documentation forbids it."""

    process_per_case: ClassVar[bool] = False
    """Whether a process that ends with them makes all calls of a case, so that nothing of them is left that a run could ask for."""

    variants: ClassVar[tuple[str, ...]] = ()
    """Each a backend of its own, NAME@VARIANT, in the same process; such a backend runs as a variant that is asked for, or not."""
    stands_for: ClassVar[str] = ""
    """The backend whose registered deviations hold for the variants too."""

    compiles_per_shape: ClassVar[bool] = False
    """Whether each shape of inputs costs a compilation: then a case asks a few lengths and shapes, not every one."""
    optional: ClassVar[bool] = False
    """Whether a run conforms without it, as where it needs a device that few machines have."""
    extra: ClassVar[bool] = False
    """Whether it runs only where it is asked for: by its name in a selection, or all of them with `--backend all`."""

    def variant(self, name: str) -> Backend:
        """Return the backend that is the variant of that name."""
        raise Unsupported(f"{self.name} has no variant {name!r}")

    @classmethod
    def reproduction(cls) -> str:
        """For a runtime: Python source that loads and runs a graph without actconform; "" where there is none, as here.

        It imports what it needs, and defines `run(model, inputs, level)`: `model` is the path of a file, `inputs` a dict of arrays
        by name, `level` as `load` takes it; the outputs are returned by name. It computes as `load` does.
        """
        return ""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Return whatever could explain a number (versions, device, threads); raise `Unavailable` if it cannot run here."""

    def library(self) -> Library:
        """Return what computes exp, tanh and their like here; raise `Unsupported` where that is not to be measured."""
        raise Unsupported(f"{self.name} shows no primitives")

    def supports(self, case: Case) -> Support:
        """Say at once, without building, whether the case is taken; "yes" promises nothing about `build`."""
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """For a framework: the kernel as a program of its own functions; raise `Unsupported` where it has none."""
        raise Unsupported(f"{self.name} builds nothing: it loads graphs")

    def build_model(self, model: Model, dtype: str) -> Program:
        """For a framework: the model of its own layers; raise `Unsupported` where it has none.

        The program takes the model's inputs and parameters by name, canonical, and gives "y" and "loss"; `vjp` takes the
        cotangent of "loss" and gives `d_<name>` for every name of `model.differentiable`. Calls leave no trace: running
        statistics and random states are as before.
        """
        raise Unsupported(f"{self.name} builds no models")

    def train(self, task: TrainingTask) -> TrainingRecord:
        """For a framework: the model trained by its own layers, loss, optimizer and loop in float32, and what that left behind.

        `actconform.plugin.training_loop` has the loop for a framework that leaves it to its users. Raises `Unsupported` where the framework has
        none of a layer or optimizer.
        """
        raise Unsupported(f"{self.name} trains no models")

    def open_trained(self, source: TrainedSource) -> TrainedModel:
        """For a framework: the user's trained model, opened.

        Raises `Unsupported`, saying what it is, where the model is none of this framework, `SourceError` where the user must change something: a factory
        that raises (its traceback trimmed to the user's lines), that needs arguments or gives no model, a damaged file, one that runs code of its own and is not trusted.
        """
        raise Unsupported(f"{self.name} opens no trained models")

    def adopt_trained(self, model: object, example: object | None) -> TrainedModel:
        """For a framework: a live model of this process, with example inputs as a factory gives them; it is not copied.

        Raises as `open_trained` does.
        """
        raise Unsupported(f"{self.name} takes no live models")

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        """For a runtime: the graph as a program; raise `Unsupported` in the runtime's words where it refuses the graph.

        `level` is empty for what users get, or one of `levels`, or "without NAME, NAME" with some of `optimizers`.
        """
        raise Unsupported(f"{self.name} loads no graphs: it builds natively")

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        """For a runtime: the tensors of the graph that it still computes, under their own names, after its optimization at `level`.

        To mark these as outputs of the graph undoes no fusion, so that the outputs which the graph has keep their bits. Only names
        of tensors that a node of the graph gives count, none of graphs within nodes. Optional: raise `Unsupported`, as here, where
        the runtime does not say; then only the final outputs of a user's model are judged as users get them.
        """
        raise Unsupported(f"{self.name} does not say what survives its optimization")


class Exporter(ABC):
    """What turns a program of a framework into an ONNX graph, called as its users call it, unpatched.

    It runs in the worker process of the backend `source`, where each export has a new instance, and exports the very
    callable that the backend runs. Import the framework inside the method, never at module level:

        class NumpyToOnnx(Exporter):
            name = "numpy2onnx"
            source = "numpy"

            def export(self, kernel, dtype):
                import numpy2onnx
                function = implement(kernel)
                try:
                    model = numpy2onnx.convert(function, {name: kernel.dims(name) for name in kernel.inputs}, dtype)
                except numpy2onnx.ConversionError as error:
                    raise Unsupported(str(error).splitlines()[0]) from error
                return Artifact(model.SerializeToString(), opset=20, path="convert")
    """

    name: ClassVar[str]
    source: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ()
    """Each an exporter of its own, NAME@VARIANT, that exports where it is asked for; then there is none without."""
    stands_for: ClassVar[str] = ""
    """The exporter whose registered deviations hold for the variants too."""

    def variant(self, name: str) -> Exporter:
        """Return the exporter that is the variant of that name."""
        raise Unsupported(f"{self.name} has no variant {name!r}")

    @classmethod
    def reproduction(cls) -> str:
        """Return Python source that exports a function of one tensor without actconform; "" where there is none, as here.

        It defines `export(path)`. `$function` stands in it for the function, as in "functools.partial(torch.celu, alpha=2)", and
        `$dtype` for the dtype, "float32" or "float16".
        """
        return ""

    @classmethod
    def layer_reproduction(cls) -> str:
        """Return Python source that loads a user's trained model and exports one of its layers without actconform; "" where there is none, as here.

        It defines `opened(source, kind, *, trusted)`, which returns the model as `TrainedSource` names it; `layer_at(model, path)`;
        `computed(layer, call, inputs)`, which returns what the layer gives as flat arrays, where `call(layer, *tensors)` calls it;
        and `export_layer(layer, call, inputs, path)`, which writes its graph with the inputs `input_0` and so on, and its outputs in that order.
        """
        return ""

    @abstractmethod
    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        """Return the graph of `kernel` at `dtype`, with every dimension of `kernel.dims` dynamic that the exporter lets be.

        Inputs bear the kernel's names and ranks, the output is "y". What the exporter writes is returned as it is, even
        if it is wrong: gates and runtimes judge it. Raises `Unsupported` in the exporter's words where it raises, and
        `Unavailable` where its package is missing. Python warnings, and warnings that it logs, are gathered by the
        worker and added to `Artifact.warnings`.
        """

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        """Return the graph of a model, the batch dynamic as far as the exporter lets it be.

        Where `constants` is None every input and parameter is an input of the graph under its name, canonical, as far as it is
        used; the outputs are "y", "loss", and "layer.NAME" for each layer, channels last. Otherwise they are the parameters,
        empty where the model has none, and the graph is what users ship: they are folded in as the exporter likes, inputs are
        those of roles "data" and "noise", and the one output is "y".
        """
        raise Unsupported(f"{self.name} exports no models")

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        """Return the graph of a user's trained model, which the backend `source` opened, called as the exporter's users call it.

        Inputs bear the model's names, outputs those of `TrainedModel.run`; `inputs` are examples. Every batch dimension is dynamic as far as the exporter
        lets it be. Raises as `export` does, naming the operator or layer where the exporter does.
        """
        raise Unsupported(f"{self.name} exports no trained models")


class Reporter(ABC):
    """What makes a file for people or other programs from a report. One instance is made for each report.

    Names, reasons and messages in a report come from plugins, models and exceptions, and may hold anything: escape them.
    """

    name: ClassVar[str]
    filename: ClassVar[str]
    """The file in the folder of the run: a plain name. It is removed before `write` is called."""

    trends: Mapping[str, Trend] = {}
    """By case what past reports tell of it; set before `write` where a history was given."""
    causes: Sequence[Cause] = ()
    """The register of known causes, for the reasons; set before `write`."""

    @abstractmethod
    def write(self, report: Report, folder: Path) -> None:
        """Write `filename` in `folder`. What is raised costs this file only: it is shown, and the verdict stays."""
