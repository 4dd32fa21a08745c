"""One check as the user asks for it: sources opened, trained models exported, samples read or drawn, every graph checked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec.structs import replace

from actconform.checking.agreement_columns import DataAgreement
from actconform.checking.command import check_command
from actconform.checking.draw import parsed_range
from actconform.checking.flatten import flatten
from actconform.checking.gradients import add_cotangents, difference_note, with_gradients
from actconform.checking.graph_fault import ill_typed_graph, malformed_graph, unevaluated, weights_of_graph
from actconform.checking.inputs import InputSample
from actconform.checking.low_precision import (
    conversion_note,
    is_low_precision,
    lowered,
    lowered_sample,
    overflowing_weights,
)
from actconform.checking.malformed import malformed_nodes
from actconform.checking.model_check import check_model
from actconform.checking.noise_columns import judged_by_noise, noise_of
from actconform.checking.open_runtime import open_runtime
from actconform.checking.samples import checked_sample, draw_user_samples, read_user_samples
from actconform.checking.source import read_source
from actconform.checking.trained.beside import (
    Beside,
    column_of,
    example_for,
    live_beside,
    misfits,
    open_beside,
    refusal_of,
)
from actconform.checking.trained.exports import Export, chosen_exporters, example_inputs, export_all
from actconform.checking.trained.runs import TrainedRuns
from actconform.checking.trained.sources import NamedSource, named_source
from actconform.errors import Unsupported, UsageError
from actconform.text import listed, one_line
from actconform.types.trained import Precision, RunMode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from actconform.checking.agreement import ColumnAgreement
    from actconform.checking.checked_sample import CheckedSample, Progress
    from actconform.checking.result import CheckResult
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.checking.trained.column import TrainedColumn
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config

    Arrays = Mapping[str, NDArray[Any]]

DEFAULT_RUNTIME = "ort-cpu"
PRECISIONS: dict[str, Precision] = {"f16": "float16", "bf16": "bfloat16"}


class CheckRequest(NamedTuple):
    """What the user asks for; the fields are those of the command line."""

    source: str
    against: tuple[str, ...] = ()
    inputs: Path | None = None
    reference: Path | None = None
    ranges: tuple[str, ...] = ()
    samples: int | None = None
    seed: int = 0
    runtimes: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()
    gradients: bool = False
    train_mode: bool = False
    dtype: Literal["f16", "bf16"] | None = None
    autocast: Literal["f16", "bf16"] | None = None
    trust: bool = False
    max_memory: float | None = None
    """GiB."""
    timeout: float | None = None
    """Seconds a call."""
    data: Any = None
    """A data set over which columns are compared, as `checking.dataset.data_set` takes it."""
    batch: int | None = None
    """Samples of it at once."""
    metric: Any = None
    """The user's own, as `checking.user_metric.user_metric` takes it."""
    worst: int = 5
    """How many samples of it that agree least are kept."""
    out: Path = Path("actconform-check")
    """Where exported graphs go."""
    config: Path | None = None
    """The user's settings, where they are named."""
    in_memory: bool = False
    """Whether something of it is in the memory of this process alone, so that no command line asks for it."""

    @property
    def memory(self) -> int | None:
        """Bytes that a check may take."""
        return None if self.max_memory is None else int(self.max_memory * 2**30)

    @property
    def graph_dtype(self) -> Literal["f16", "bf16"] | None:
        """The format to which the graph is converted: of autocast too, since no graph of float32 allows for its rounding."""
        return self.dtype or self.autocast

    @property
    def mode(self) -> RunMode:
        """How trained models run beside the graph."""
        if self.autocast:
            return RunMode("autocast-float16" if self.autocast == "f16" else "autocast-bfloat16", self.train_mode)
        return RunMode(PRECISIONS.get(self.dtype or "", "native"), self.train_mode)


class CheckedGraph(NamedTuple):
    """One graph that was checked, with what it was checked with."""

    result: CheckResult
    source: Source
    samples: Sequence[CheckedSample]
    runtimes: Sequence[RuntimeRuns]
    agreed: Sequence[ColumnAgreement] = ()
    """Over the data set, with the worst samples."""
    exporter: str = ""
    """That made it of the trained model; "" for a file of the user."""
    folder: str = ""
    """Below that of the check, for its files; "" for the only graph of a check, whose files lie there."""
    columns: Sequence[TrainedColumn] = ()
    """The trained models beside it, in the order of the result's columns."""


class FailedExport(NamedTuple):
    """An exporter that made no graph that could be checked."""

    exporter: str
    reason: str


def expect_consistent_request(request: CheckRequest) -> None:
    """Raise UsageError for wishes that do not go together."""
    if request.inputs is not None and (request.ranges or request.samples):
        raise UsageError("--range and --samples are for inputs that are drawn: leave them out, or leave out --inputs")
    if request.reference is not None and request.inputs is None:
        raise UsageError("outputs that were saved belong to certain inputs: give these with --inputs")
    if request.reference is not None and (request.gradients or request.dtype):
        raise UsageError("--reference has outputs of the model as it is: leave out --gradients and --dtype")
    if request.data is None and (request.metric is not None or request.batch):
        raise UsageError("--metric and --batch are for a data set: name it with --data")
    for option, value in (("dtype", request.dtype), ("autocast", request.autocast)):
        if value not in (None, *PRECISIONS):
            raise UsageError(f"--{option} {one_line(str(value))}: expected one of {', '.join(PRECISIONS)}")
    if request.autocast and request.dtype:
        raise UsageError("--autocast and --dtype both convert the graph: choose one")


def check_graphs(
    request: CheckRequest,
    catalog: Catalog,
    config: Config,
    progress: Progress,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[], None] = lambda: None,
    live: Mapping[str, TrainedRuns] = MappingProxyType({}),
) -> Generator[CheckedGraph | FailedExport]:
    """Check the ONNX file, or every export of the trained model, and yield the results as they come; processes end with the iterator.

    `live` are models of this process, by the text that names each in the request. `begin` is called when sources and inputs are read, before what takes long; it may raise UsageError.

    Raises UsageError for what the user must change, OSError where an exported graph cannot be written.
    """
    expect_consistent_request(request)
    with ExitStack() as stack:
        runtimes = [
            stack.enter_context(open_runtime(name, catalog, config, say, timeout=request.timeout))
            for name in dict.fromkeys(request.runtimes or (DEFAULT_RUNTIME,))
        ]
        progress.stage("opening")
        named = (
            NamedSource(request.source, "trained", live[request.source].source)
            if request.source in live
            else named_source(request.source, trusted=request.trust)
        )
        if named.kind == "outputs":
            raise UsageError(
                f"{one_line(request.source)}: holds outputs: name the model first, and this with --against"
            )
        texts = [*([request.source] if named.kind == "trained" else []), *request.against]
        graphs = [read_source(named.path, max_memory=request.memory)] if named.kind == "onnx" else []
        models = [live_beside(live[text], text) for text in texts if text in live]
        opened, saved = open_beside(
            [text for text in texts if text not in live],
            catalog,
            config,
            stack,
            trusted=request.trust,
            timeout=request.timeout,
            max_memory=request.memory,
        )
        models = sorted([*models, *opened], key=lambda model: texts.index(model.text))
        _expect_trained(request, models)
        session = _Session(_with_saved(request, saved), runtimes, models, progress, begin)
        if graphs:
            yield session.check(graphs[0])
        else:
            yield from session.check_exports()


def _expect_trained(request: CheckRequest, models: Sequence[Beside]) -> None:
    """Raise UsageError where a trained model is spoken of, and none is named."""
    wishes = {"--autocast": request.autocast, "--train-mode": request.train_mode, "--exporter": request.exporters}
    option = next((option for option, value in wishes.items() if value), "")
    if option and all(model.is_graph for model in models):
        raise UsageError(f"{option} is for a trained model: name it, or name it with --against")


def _with_saved(request: CheckRequest, saved: Sequence[Path]) -> CheckRequest:
    """Return the request with the outputs that stand among `--against` as its reference."""
    if not saved:
        return request
    if len(saved) > 1 or request.reference is not None:
        raise UsageError("more than one file of saved outputs: check each by itself")
    against = tuple(text for text in request.against if Path(text) != saved[0])
    request = request._replace(reference=saved[0], against=against)
    expect_consistent_request(request)
    return request


class _Session:
    def __init__(
        self,
        request: CheckRequest,
        runtimes: Sequence[RuntimeRuns],
        models: Sequence[Beside],
        progress: Progress,
        begin: Callable[[], None],
    ) -> None:
        self._request = request
        self._runtimes = runtimes
        self._models = models
        self._progress = progress
        self._begin = begin
        self._example: tuple[Arrays, str] | None = None

    def check_exports(self) -> Iterator[CheckedGraph | FailedExport]:
        """Yield what came of each export of the first trained model, and of ONNX files beside it."""
        request, first = self._request, self._models[0]
        if not isinstance(first.runs, TrainedRuns):
            raise TypeError("a graph exports nothing")
        exporters = chosen_exporters(request.exporters, first.opened)
        self._example = example_inputs(
            first.runs, first.opened, request.inputs, seed=request.seed, max_memory=request.memory
        )
        files = [model for model in self._models if model.is_graph]
        if not exporters and not files:
            raise UsageError(
                f"{one_line(request.source)}: no exporter takes {first.opened.about}: name its ONNX file first, and this with --against"
            )
        self._begin()
        self._progress.stage("exporting", len(exporters))
        exports = export_all(
            first.runs,
            exporters,
            self._example[0],
            request.out,
            lambda _: self._progress.step(),
            training=request.train_mode,
            max_memory=request.memory,
        )
        for export in exports:
            yield self._of_export(export)
        for file in files:
            source = read_source(Path(file.text), max_memory=request.memory)
            rest = [model for model in self._models if model is not file]
            checked = _Session(request, self._runtimes, rest, self._progress, self._begin).check(source)
            yield checked._replace(folder=source.path.stem if exports or len(files) > 1 else "")

    def _of_export(self, export: Export) -> CheckedGraph | FailedExport:
        if export.source is None:
            return FailedExport(export.exporter, export.failure)
        try:
            checked = self.check(export.source, export.exporter)
        except UsageError as error:
            return FailedExport(export.exporter, str(error))
        notes = (*checked.result.notes, *(f"{export.exporter}: {one_line(text, 400)}" for text in export.warnings))
        return checked._replace(result=replace(checked.result, notes=notes))

    def check(self, source: Source, exporter: str = "") -> CheckedGraph:
        """Return the result of one graph with all that stands beside it."""
        request, progress = self._request, self._progress
        malformed = list(malformed_nodes(source.model))
        if any(not node.readable for node in malformed):
            self._begin()
            reason = "nothing was run: there are nodes that the standard does not have as they are written"
            result = unevaluated(source, [], None, malformed_graph(malformed, exporter), reason)
            return CheckedGraph(result, source, [], self._runtimes, (), exporter, exporter, [])
        progress.stage("inputs")
        columns, samples, notes = self._prepared(source, exporter)
        data = DataAgreement(request, source) if request.data is not None else None
        seed, command = None if request.inputs else request.seed, check_command(request, exporter)
        self._begin()
        try:
            checked = self._variant(source, samples, notes)
            result = check_model(checked, samples, self._runtimes, progress, seed=seed, trained=columns)
            notes += self._second_looks(source, samples[0])
        except (Unsupported, ValueError) as error:
            reason = f"{one_line(str(source.path))} cannot be evaluated: {one_line(str(error))}"
            column = malformed_graph(malformed, exporter) if malformed else ill_typed_graph(source, exporter)
            if column is None:
                raise UsageError(reason) from error
            result = replace(unevaluated(source, samples, seed, column, reason), command=command)
            return CheckedGraph(result, source, samples, self._runtimes, (), exporter, exporter, columns)
        if is_low_precision(samples[0].graph):
            progress.stage("noise of the format")
            noise = noise_of(samples[0], self._runtimes, columns, result, source if request.graph_dtype else None)
            result = judged_by_noise(replace(result, noise=noise), columns)
        refused = any(runtime.status == "failed" for runtime in result.runtimes)
        undefined = malformed_graph(malformed, exporter) if malformed and refused else None
        column = undefined or ill_typed_graph(source, exporter)
        if column is None:
            column, more = weights_of_graph(checked, samples, self._runtimes)
            notes += more
        if column is not None:
            result = replace(result, runtimes=[*result.runtimes, column])
        notes += [] if undefined else [f"{one_line(each.node.op_type, 80)} {each.words}" for each in malformed]
        result = replace(result, notes=(*result.notes, *notes), command=command)
        agreed = data.of_columns(self._forward(source), self._runtimes, columns, progress) if data else []
        result = replace(result, agreement=[column.agreement for column in agreed])
        return CheckedGraph(result, checked, samples, self._runtimes, agreed, exporter, exporter, columns)

    def _prepared(self, source: Source, exporter: str) -> tuple[list[TrainedColumn], list[CheckedSample], list[str]]:
        """Return the trained models as columns, the user's samples or drawn ones, and notes about them."""
        request = self._request
        if request.inputs is not None and self._example is None:
            samples, notes = read_user_samples(request.inputs, source, request.reference, request.memory)
            return self._columns(source, samples[0].inputs, exporter), samples, notes
        samples, notes = [], list[str]()
        if self._example is not None:
            arrays, origin = self._example
            inputs = dict(example_for(source, self._models[0].opened, arrays))
            samples.append(checked_sample(InputSample("example", inputs), origin))
            if request.inputs is not None:
                return self._columns(source, inputs, exporter), samples, []
        elif request.reference is None:
            samples, notes = self._example_samples(source)
        columns = self._columns(source, samples[0].inputs, exporter) if samples else []
        drawn = draw_user_samples(
            source,
            self._runtimes,
            seed=request.seed,
            count=request.samples,
            ranges=dict(map(parsed_range, request.ranges)),
            max_memory=request.memory,
            refusals=[refusal_of(column) for column in columns],
        )
        samples += [sample for sample in drawn if not samples or sample.facts.shapes != samples[0].facts.shapes]
        return columns or self._columns(source, samples[0].inputs, exporter), samples, notes

    def _example_samples(self, source: Source) -> tuple[list[CheckedSample], list[str]]:
        """Return the inputs that a factory gave beside its model, where they fit the graph, and a note where they do not."""
        factory = next((model for model in self._models if model.opened.example), None)
        if factory is None or not isinstance(factory.runs, TrainedRuns):
            return [], []
        arrays, origin = example_inputs(
            factory.runs, factory.opened, None, seed=self._request.seed, max_memory=self._request.memory
        )
        try:
            inputs = dict(example_for(source, factory.opened, arrays))
        except UsageError as error:
            return [], [f"the example inputs of {one_line(factory.text)} are not used: {one_line(str(error))}"]
        if misfit := misfits(source, inputs):
            return [], [f"the example inputs of {one_line(factory.text)} are not used: {misfit}"]
        return [checked_sample(InputSample("example", inputs), origin)], []

    def _columns(self, source: Source, example: Arrays, exporter: str) -> list[TrainedColumn]:
        mode = self._request.mode
        return [
            column_of(model, source, example, mode, exporter if place == 0 else "")
            for place, model in enumerate(self._models)
        ]

    def _forward(self, source: Source) -> onnx.ModelProto:
        """Return the graph in the precision that is asked for. Of bfloat16 runtimes on the CPU have next to no kernels: each result is rounded once."""
        dtype = self._request.graph_dtype
        return lowered(source.model, dtype, between_casts=dtype == "bf16").model if dtype else source.model

    def _variant(self, source: Source, samples: Sequence[CheckedSample], notes: list[str]) -> Source:
        """Return what is checked: the model, converted or with gradients where that is asked for; samples follow it."""
        model = self._forward(source)
        if dtype := self._request.graph_dtype:
            if beyond := overflowing_weights(source.model, dtype):
                notes.append(f"weights with values beyond {dtype}, which become infinite: {listed(beyond, 5)}")
            for sample in samples:
                inputs = lowered_sample(sample.inputs, dtype)
                if self._models:
                    widened = {
                        name: array.astype(sample.inputs[name].dtype, copy=False) for name, array in inputs.items()
                    }
                    sample.original = flatten(source.model, widened)
                sample.inputs = inputs
        if self._request.gradients:
            for sample in samples:
                sample.inputs = add_cotangents(model, sample.inputs, self._request.seed)
            model = with_gradients(model, beside_trained=bool(self._models))
        return source if model is source.model else source.with_model(model)

    def _second_looks(self, source: Source, sample: CheckedSample) -> list[str]:
        """Return what says whether a converted model, or gradients, are those of the model itself."""
        notes = []
        if self._request.graph_dtype:
            inputs = {name: array for name, array in sample.inputs.items() if name in source.inputs}
            notes.append(conversion_note(source.model, inputs, sample.graph.truth))
        if self._request.gradients:
            notes.append(difference_note(self._forward(source), sample.graph, sample.inputs))
        return notes
