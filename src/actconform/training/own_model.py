"""The training of a user's own model: opened, stepped through in the worker of a runtime, and written as it goes."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from actconform.checking.open_runtime import open_runtime
from actconform.checking.runs import MODEL, RunFailure
from actconform.checking.source import read_source
from actconform.errors import UsageError
from actconform.files import write_bytes
from actconform.onnx.step_graph import model_of_state
from actconform.onnx.trainable import TARGET
from actconform.onnx.training_mode import drawing_nodes, training_norms
from actconform.plugin.training_loop import Stopping
from actconform.text import number_of, one_line
from actconform.training.checkpoint import (
    CHECKPOINT,
    TrainIdentity,
    TrainProgress,
    expect_free_names,
    expect_safetensors,
    read_checkpoint,
    write_checkpoint,
)
from actconform.training.data import read_train_data
from actconform.training.graphs import train_graphs
from actconform.training.probabilities import probability_notes
from actconform.training.request import TrainSettings, expect_counts, loss_of, optimizer_of, stopping_of
from actconform.types import Artifact
from actconform.types.model import LOSS
from actconform.workers.step_session import NotFinite, StepJob, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.training.data import TrainData
    from actconform.training.graphs import TrainGraphs
    from actconform.training.request import TrainRequest
    from actconform.types.training_run import Bundle

TRAINED, LOSSES_FILE = "model.onnx", "losses.csv"
JOB_SECONDS = 0.2  # of steps or evaluations in one message to the worker: Ctrl-C waits for no more
MOST_STEPS = 256  # likewise
VALIDATION = "validation loss"
WRITE_SECONDS = 1.0  # between two checkpoints at ends of epochs, so that short epochs do not write all the time


class TrainListener(Protocol):
    """Hears how far a training is."""

    def epoch(self, number: int, losses: NDArray[np.float32], validation: float | None, seconds_left: float) -> None:
        """An epoch, counted from 1, has ended with these losses of its steps."""

    def steps(self, done: int, total: int) -> None:
        """So many steps of all are made."""


class TrainOutcome(NamedTuple):
    """How a training ended.

    finished: it has all its steps; early: the validation loss fell no more; interrupted: Ctrl-C; broken: a number is NaN or infinite;
    failed: the runtime gave no answer. `files` are those that were written.
    """

    ending: Literal["finished", "early", "interrupted", "broken", "failed"]
    step: int
    """The last step that was made and gave finite numbers; where the runtime failed, as far as it is known."""
    steps_per_epoch: int
    total: int
    losses: NDArray[np.float32]
    validation: NDArray[np.float32]
    files: tuple[str, ...]
    settings: TrainSettings
    parameters: tuple[str, ...]
    best_epoch: int = 0
    """The epoch, from 1 on, whose weights the model has; 0 for those of the end."""
    saved: int = 0
    """The step of the checkpoint that is there; 0 where there is none."""
    broken: NotFinite | None = None
    failure: str = ""
    facts: str = ""
    left_out: int = 0
    """Rows of an epoch that do not fill a batch."""
    notes: tuple[str, ...] = ()
    """What the model has that a training or its reader should know of."""


def train_own_model(
    request: TrainRequest,
    catalog: Catalog,
    config: Config,
    listener: TrainListener,
    say: Callable[[str], None] = lambda _: None,
) -> TrainOutcome:
    """Train a model as asked, and write the folder `request.out`: checkpoint.safetensors, model.onnx, losses.csv.

    The order of batches, and with it every bit, follows from seed, rows and settings, so that a training which is interrupted and
    resumed gives the numbers of one that is not. Raises UsageError for what the user must change, before anything is written, and
    OSError, which names the file, where one cannot be written; the checkpoint before it is whole then.
    """
    expect_counts(request)
    loss, optimizer, stopping = loss_of(request), optimizer_of(request), stopping_of(request)
    expect_safetensors()
    memory = None if request.max_memory is None else int(request.max_memory * 2**30)
    with ExitStack() as stack:
        runs = stack.enter_context(open_runtime(request.runtime, catalog, config, say, timeout=request.timeout))
        source = read_source(request.model, max_memory=memory)
        graphs = train_graphs(
            source, loss=loss, optimizer=optimizer, output=request.output, parameters=request.parameters
        )
        expect_free_names(list(graphs.state))
        data = read_train_data(
            request.data,
            source,
            graphs.output,
            target=request.target,
            batch=request.batch,
            validation=request.validation,
        )
        settings = TrainSettings(
            loss=loss,
            optimizer=optimizer,
            output=graphs.output,
            target=data.target,
            batch=data.batch,
            parameters=graphs.parameters,
            validation=request.validation or 0.0,
            stopping=stopping,
            runtime=request.runtime,
            seed=request.seed,
        )
        training = _Training(request, source, graphs, data, settings, runs)
        training.begin()
        return training.run(listener)


class _Training:
    def __init__(
        self,
        request: TrainRequest,
        source: Source,
        graphs: TrainGraphs,
        data: TrainData,
        settings: TrainSettings,
        runs: RuntimeRuns,
    ) -> None:
        self._request, self._source, self._graphs, self._data = request, source, graphs, data
        self._settings, self._runs = settings, runs
        self._identity = TrainIdentity(model=source.sha256, data=data.digest, settings=settings)
        self._total = request.steps if request.steps is not None else (request.epochs or 1) * data.steps
        nothing = np.zeros(0, np.float32)
        self._progress = TrainProgress(step=0, state=graphs.state, losses=nothing, validation=nothing)
        self._losses: list[NDArray[np.float32]] = []
        self._epoch_losses: list[NDArray[np.float32]] = []
        self._epochs_ended = 0
        self._stopping: Stopping | None = None
        self._group = 1  # steps of the next message
        self._started, self._first = 0.0, 0
        self._facts = ""
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._written: list[str] = []
        self._saved = 0
        self._written_at = -WRITE_SECONDS
        self._notes = _notes(graphs)

    def begin(self) -> None:
        """Read the checkpoint where the training goes on, have the runtime load the graphs, and see that the folder can be written.

        Raises UsageError where one of them cannot be.
        """
        out, path = self._request.out, self._request.out / CHECKPOINT
        shown = one_line(str(out))
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {shown}: is a file: name a folder")
        if self._request.resume:
            self._progress = read_checkpoint(path, self._identity, self._graphs.state)
            if self._progress.step > self._total:
                raise UsageError(
                    f"{one_line(str(path))}: has {number_of(self._progress.step, 'step')} ({self._epochs(self._progress.step)}), and "
                    f"{self._total:,} are asked for: ask for more with --epochs or --steps"
                )
        elif path.exists():
            raise UsageError(f"--out {shown}: holds a training: go on with it with --resume, or name another folder")
        if (out / TRAINED).exists() and not path.exists():
            raise UsageError(f"--out {shown}: holds a {TRAINED} that is of no training there: name another folder")
        if _same_file(out / TRAINED, self._request.model):
            raise UsageError(f"--out {shown}: its {TRAINED} is the model that is read: name another folder")
        self._take_up()
        self._load()
        try:
            out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
        except OSError as error:
            raise UsageError(f"--out {shown}: cannot be written: {error.strerror}") from error

    def _take_up(self) -> None:
        """Go on from the progress."""
        progress, steps = self._progress, self._data.steps
        self._losses, self._saved = [progress.losses], progress.step
        self._epochs_ended = len(progress.validation) if self._data.held_out else progress.step // steps
        self._epoch_losses = [progress.losses[self._epochs_ended * steps :]]
        if self._settings.stopping is not None:
            self._stopping = Stopping(self._settings.stopping, progress.best_loss, progress.waited)

    def run(self, listener: TrainListener) -> TrainOutcome:
        """Make the steps that are left, and write what came of them."""
        self._started, self._first = time.perf_counter(), self._progress.step
        with _interrupts() as interrupted:
            while self._owes_epoch or (self._progress.step < self._total and not self._progress.ended):
                outcome = self._end_epoch(listener, interrupted) if self._owes_epoch else self._make_group(listener)
                if outcome is not None:
                    return outcome
                if interrupted.is_set():
                    return self._write_all("interrupted")
            return self._write_all("early" if self._progress.ended else "finished")

    def _make_group(self, listener: TrainListener) -> TrainOutcome | None:
        """Make some steps within an epoch; return how training ended where it did."""
        result = self._steps(min(self._group, self._left_in_epoch))
        if isinstance(result, RunFailure):
            return self._outcome("failed", failure=result.message)
        if result.broken is not None:
            return self._outcome("broken", broken=result.broken)
        self._group = _next_group(len(self._losses[-1]), result.seconds)
        listener.steps(self._progress.step, self._total)
        return None

    @property
    def _owes_epoch(self) -> bool:
        """Whether all steps of an epoch are made that is not evaluated yet: Ctrl-C leaves such a one too."""
        return self._progress.step // self._data.steps > self._epochs_ended

    @property
    def _left_in_epoch(self) -> int:
        step = self._progress.step
        return min(self._data.steps - step % self._data.steps, self._total - step)

    @property
    def _all_losses(self) -> NDArray[np.float32]:
        self._losses = [np.concatenate(self._losses)]
        return self._losses[0]

    def _epochs(self, steps: int) -> str:
        return f"{steps / self._data.steps:g} epochs"

    def _load(self) -> None:
        """Have the runtime load both graphs and evaluate a batch, whose output has the shape of its target."""
        graphs, rows = self._graphs, slice(0, self._data.batch)
        artifacts = [Artifact(graph, graphs.opset, MODEL) for graph in (graphs.step, graphs.inference)]
        batch = self._data.batch_of(rows)
        result = self._runs.make_steps(
            StepJob(
                case=self._runs.case,
                step=artifacts[0],
                inference=artifacts[1],
                output=graphs.output,
                state=self._progress.state,
                evaluated=[batch],
            )
        )
        if isinstance(result, RunFailure):
            raise UsageError(f"{self._runs.name} computes no loss of the first rows: {one_line(result.message)}")
        output = np.asarray(result.output)
        if output.shape != batch[TARGET].shape:
            raise UsageError(
                f"{one_line(str(self._request.data))}: target {one_line(self._data.target)!r} has shape {list(batch[TARGET].shape)} "
                f"for a batch, and output {one_line(graphs.output)!r} of the model {list(output.shape)}"
            )
        if not self._progress.step:  # what a trained model gives says nothing of what it was
            target = self._data.target, self._data.arrays[TARGET]
            self._notes += probability_notes(self._settings.loss, output=(graphs.output, output), target=target)
        facts = self._runs.start()
        self._facts = (
            ""
            if isinstance(facts, RunFailure)
            else ", ".join(f"{package} {facts[package]}" for package in self._runs.packages if package in facts)
        )

    def _steps(self, count: int) -> StepResult | RunFailure:
        """Make some steps within an epoch, and take up what came of them."""
        first = self._progress.step
        epoch, place = divmod(first, self._data.steps)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._data.order(self._settings.seed, epoch))
        rows = self._order[1][place : place + count]
        numbers = range(first + 1, first + 1 + len(rows))
        result = self._runs.make_steps(
            StepJob(
                case=self._runs.case,
                first=first + 1,
                batches=[self._data.batch_of(chosen) for chosen in rows],
                rates=[self._settings.optimizer.rate(number) for number in numbers],
            )
        )
        if not isinstance(result, RunFailure) and result.losses is not None:
            self._losses.append(result.losses)
            self._epoch_losses.append(result.losses)
            last = first + len(rows) if result.broken is None else result.broken.step - 1
            self._progress = self._progress._replace(step=last)
        return result

    def _end_epoch(self, listener: TrainListener, interrupted: threading.Event) -> TrainOutcome | None:
        """Evaluate an epoch on the validation rows, and judge whether training ends; return how it did where something failed."""
        loss = self._validation_loss(interrupted) if self._data.held_out else None
        if isinstance(loss, RunFailure):
            return self._outcome("failed", failure=loss.message)
        if self._data.held_out and loss is None:
            return None
        step = self._progress.step
        if loss is not None:
            self._progress = self._progress._replace(validation=np.append(self._progress.validation, np.float32(loss)))
            failure = self._judge(loss)
            if failure is not None:
                return self._outcome("failed", failure=failure.message)
            if not np.isfinite(loss):
                broken = NotFinite(step=step, tensor=VALIDATION, index=(), value=loss)
                return self._outcome("broken", broken=broken)
        left = (time.perf_counter() - self._started) / max(step - self._first, 1) * (self._total - step)
        self._epochs_ended += 1
        listener.epoch(self._epochs_ended, np.concatenate(self._epoch_losses), loss, left)
        self._epoch_losses = []
        if time.monotonic() - self._written_at > WRITE_SECONDS:
            failure = self._write_checkpoint()
            if failure is not None:
                return self._outcome("failed", failure=failure.message)
        return None

    def _validation_loss(self, interrupted: threading.Event) -> float | RunFailure | None:
        """Return the mean over the validation rows, rounded to float32; None after Ctrl-C, when who goes on evaluates them anew."""
        slices, group = self._data.validation_batches(), 1
        losses: list[float] = []
        while len(losses) < len(slices):
            if interrupted.is_set():
                return None
            chosen = slices[len(losses) : len(losses) + group]
            evaluated: list[Bundle] = [self._data.batch_of(rows) for rows in chosen]
            job = StepJob(case=self._runs.case, output=self._graphs.output, evaluated=evaluated)
            result = self._runs.make_steps(job)
            if isinstance(result, RunFailure):
                return result
            losses += np.asarray(result.evaluations, np.float64).tolist()
            group = _next_group(len(chosen), result.evaluation_seconds)
        return float(np.float32(np.average(losses, weights=[rows.stop - rows.start for rows in slices])))

    def _judge(self, loss: float) -> RunFailure | None:
        """Keep the weights of the best epoch, and note whether training ends early."""
        stopping = self._stopping
        if stopping is None:
            return None
        if stopping.improves(loss):
            state = self._state()
            if isinstance(state, RunFailure):
                return state
            self._progress = self._progress._replace(best={name: state[name] for name in self._graphs.weights})
        self._progress = self._progress._replace(best_loss=stopping.best, waited=stopping.waited, ended=stopping.ended)
        return None

    def _state(self) -> Mapping[str, NDArray[Any]] | RunFailure:
        result = self._runs.make_steps(StepJob(case=self._runs.case, give_state=True))
        return result if isinstance(result, RunFailure) else result.state

    def _write_checkpoint(self) -> RunFailure | None:
        state = self._state()
        if isinstance(state, RunFailure):
            return state
        self._progress = self._progress._replace(
            state={name: state[name] for name in self._graphs.state}, losses=self._all_losses
        )
        path = self._request.out / CHECKPOINT
        write_checkpoint(path, self._identity, self._progress, self._progress.step // self._data.steps)
        self._written = [str(path)]
        self._written_at, self._saved = time.monotonic(), self._progress.step
        return None

    def _write_all(self, ending: Literal["finished", "early", "interrupted"]) -> TrainOutcome:
        """Write the checkpoint, the losses, and where training has ended the model with what it has learned."""
        failure = self._write_checkpoint()
        if failure is not None:
            return self._outcome("failed", failure=failure.message)
        self._write_losses()
        if ending != "interrupted":
            weights = self._progress.best or {name: self._progress.state[name] for name in self._graphs.weights}
            trained = model_of_state(self._source.model, weights)
            self._write_file(TRAINED, trained.SerializeToString())
        return self._outcome(ending)

    def _write_losses(self) -> None:
        steps, validation = self._data.steps, self._progress.validation
        lines = ["step,epoch,loss,validation_loss"]
        for index, loss in enumerate(self._all_losses):
            epoch, place = divmod(index, steps)
            judged = f"{validation[epoch]:.9g}" if place == steps - 1 and epoch < len(validation) else ""
            lines.append(f"{index + 1},{epoch + 1},{loss:.9g},{judged}")
        self._write_file(LOSSES_FILE, "\n".join([*lines, ""]).encode())

    def _write_file(self, name: str, content: bytes) -> None:
        path = self._request.out / name
        try:
            write_bytes(path, content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        self._written.append(str(path))

    def _outcome(
        self,
        ending: Literal["finished", "early", "interrupted", "broken", "failed"],
        *,
        broken: NotFinite | None = None,
        failure: str = "",
    ) -> TrainOutcome:
        if ending in ("broken", "failed"):
            self._write_losses()
        best = self._progress.best
        return TrainOutcome(
            ending=ending,
            step=self._progress.step,
            steps_per_epoch=self._data.steps,
            total=self._total,
            losses=self._all_losses,
            validation=self._progress.validation,
            files=tuple(self._written),
            settings=self._settings,
            parameters=self._graphs.parameters,
            saved=self._saved,
            best_epoch=len(self._progress.validation) - self._progress.waited if best else 0,
            broken=broken,
            failure=failure,
            facts=self._facts,
            left_out=self._data.training_rows % self._data.batch,
            notes=self._notes,
        )


def _next_group(count: int, seconds: float) -> int:
    """Return how many steps or evaluations take JOB_SECONDS, where so many took these seconds."""
    return max(1, min(MOST_STEPS, int(JOB_SECONDS * count / max(seconds, 1e-6))))


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _notes(graphs: TrainGraphs) -> tuple[str, ...]:
    """Return, in words, the nodes that draw random numbers in the runtime, and those that normalize by their batch."""
    notes = [
        f"{one_line(node)} draws random numbers in the runtime: a training that is resumed has others"
        for node in drawing_nodes(graphs.step, [LOSS])
    ]
    notes += [
        f"{one_line(node)} normalizes by its batch, as it was exported, in {TRAINED} too; here it was evaluated by its running statistics"
        for node in training_norms(graphs.step, [LOSS])
    ]
    return tuple(notes)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Give what the first Ctrl-C sets, so that the step at hand is finished; the second one interrupts as ever."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:  # noqa: ARG001  the signature of a handler
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
