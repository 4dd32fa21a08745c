"""`actconform train`: an exported ONNX model, trained in an ONNX runtime on a user's own data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from actconform.cli import _completion, _options, announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.terminal.console import open_console
from actconform.report.terminal.train_progress import TrainScreen
from actconform.say import say
from actconform.settings import read_config
from actconform.text import number_of, one_line
from actconform.training.checkpoint import CHECKPOINT
from actconform.training.own_model import LOSSES_FILE, TRAINED, TrainOutcome, train_own_model
from actconform.training.request import TrainRequest
from actconform.workers.from_settings import configured

RESUME = "--resume"


@click.command("train")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="An .npz, or a folder of NAME.npy: the model's inputs and the target, rows along the first axis.",
)
@click.option("--target", help="What the file calls the target (default: the one array that is no input).")
@click.option("--loss", help="mean-squared-error, binary-cross-entropy, categorical-cross-entropy-from-logits ...")
@click.option("--optimizer", default="adam", show_default=True, help="adam, adamw, sgd or rmsprop.")
@click.option("--learning-rate", type=float, help="Default: 0.001, of sgd 0.01.")
@click.option("--momentum", type=float, help="Of sgd (default: 0).")
@click.option("--nesterov", is_flag=True, default=None, help="Of sgd with momentum.")
@click.option("--beta1", type=float, help="Of adam and adamw (default: 0.9).")
@click.option("--beta2", type=float, help="Of adam, adamw and rmsprop (default: 0.999).")
@click.option("--epsilon", type=float, help="Of adam, adamw and rmsprop (default: 1e-7).")
@click.option("--weight-decay", type=float, help="Of adamw (default: 0).")
@click.option(
    "--decay", type=float, help="What the learning rate is multiplied by after each --decay-steps (default: 1)."
)
@click.option("--decay-steps", type=int, help="Default: 1.")
@click.option("--batch", type=int, help="Rows of a step (default: what the model takes, else 32).")
@click.option("--epochs", type=int, help="Passes over the data (default: 1).")
@click.option("--steps", type=int, help="Steps in place of epochs.")
@click.option("--output", help="The output that the loss is of; needed where there are several.")
@click.option(
    "--parameters", multiple=True, help="Weights to train, by name or pattern: 'head.*' (repeatable; default: all)."
)
@click.option(
    "--validation", type=float, help="The share of rows, the last ones, to evaluate on after each epoch: 0.2."
)
@click.option("--stop-patience", type=int, help="End after so many epochs without gain, with the best weights.")
@click.option("--stop-min-delta", type=float, help="By how much the validation loss must fall to count (default: 0).")
@click.option(
    "--runtime",
    default="ort-cpu",
    show_default=True,
    shell_complete=_completion.runtimes,
    help="What trains: ort-cpu, openvino, reference ...",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of rows.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("actconform-train"), show_default=True)
@click.option(RESUME, is_flag=True, help="Go on from the checkpoint in --out, bit for bit.")
@click.option("--max-memory", type=float, help="In GiB (default: what the machine has available).")
@click.option("--timeout", type=float, help="Seconds that a step may take.")
@_options.config
def command(config_path: Path | None, **arguments: Any) -> int:
    """Train MODEL, an exported ONNX file with its weights, in an ONNX runtime, and write it with what it has learned.

    Forward pass, loss, gradients and update are one ONNX graph; a step is one call of the runtime: state in, state out. --out gets
    model.onnx, losses.csv, and checkpoint.safetensors, with which --resume goes on as if the training had never stopped.

    Exit code 0: it is trained; 1: a loss or a weight became NaN, the runtime failed, Ctrl-C, or a file could not be written; 2: wrong usage.
    """
    try:
        request = TrainRequest(**arguments)
        if not str(request.out).strip("."):
            raise UsageError("--out is empty, or the folder at hand: name one of its own")
        config = read_config(config_path)
        catalog = configured(announced(load_plugins()), config)
        epochs = 0 if request.steps is not None else request.epochs or 1
        with TrainScreen(open_console(to_stderr=True), epochs) as screen:
            outcome = train_own_model(request, catalog, config, screen, _say_aside)
    except UsageError as error:
        raise UsageError(one_line(str(error))) from error
    if outcome.ending not in ("finished", "early"):
        _say_why(outcome, request)
        return 1
    _print_trained(outcome, request)
    return 0


def _say_aside(text: str) -> None:
    say(text, err=True)


def _print_trained(outcome: TrainOutcome, request: TrainRequest) -> None:
    """Print what came of a training that has ended."""
    facts = f" ({one_line(outcome.facts)})" if outcome.facts else ""
    early = ", ended early" if outcome.ending == "early" else ""
    say(
        f"TRAINED  {one_line(str(request.model))}: {_counted(outcome)}{early}; {outcome.settings.optimizer.about}; "
        f"in {request.runtime}{facts}"
    )
    say(f"WEIGHTS  {len(outcome.parameters):,}: {one_line(', '.join(outcome.parameters), 120)}")
    if outcome.left_out:
        say(f"ROWS     {outcome.left_out:,} of an epoch do not fill a batch and wait for another epoch")
    for note in outcome.notes:
        say(f"NOTE     {note}")
    say(f"LOSS     {_course(outcome)}")
    say(f"WROTE    {', '.join(map(one_line, outcome.files))}")
    say(f"NEXT     actconform check {shlex.quote(one_line(str(request.out / TRAINED)))}")


def _say_why(outcome: TrainOutcome, request: TrainRequest) -> None:
    """Print on standard error why a training has not ended, and how it goes on."""
    again = shlex.join(["actconform", *(word for word in sys.argv[1:] if word != RESUME), RESUME])
    if outcome.ending == "interrupted":
        _say_aside(f"interrupted after step {outcome.step:,} of {outcome.total:,}; go on with: {again}")
        return
    broken = outcome.broken
    if broken is None:
        _say_aside(f"error: {request.runtime} failed after {_counted(outcome)}: {one_line(outcome.failure)}")
    else:
        place = f"[{', '.join(map(str, broken.index))}]" if broken.index else ""
        epoch = -(-broken.step // outcome.steps_per_epoch)
        _say_aside(
            f"error: {one_line(broken.tensor)}{place} is {broken.value:g} in step {broken.step:,} (epoch {epoch:,}), the first "
            "number that is not finite: nothing is learned from there on; a smaller --learning-rate may help"
        )
    _say_aside(f"no model was written; the losses until then: {one_line(str(request.out / LOSSES_FILE))}")
    if outcome.saved and broken is None:
        _say_aside(f"go on from step {outcome.saved:,} with: {again}")
    elif outcome.saved:
        _say_aside(f"{one_line(str(request.out / CHECKPOINT))} is that of step {outcome.saved:,}, before it")


def _counted(outcome: TrainOutcome) -> str:
    epochs = outcome.step / outcome.steps_per_epoch
    return f"{number_of(outcome.step, 'step')} of {number_of(outcome.settings.batch, 'row')}, {epochs:.3g} {'epoch' if epochs == 1 else 'epochs'}"


def _course(outcome: TrainOutcome) -> str:
    """Return the loss before and after, in words: means of the first and the last whole epoch, else of the first and last step."""
    losses, steps = outcome.losses.astype(np.float64), outcome.steps_per_epoch
    epochs = len(losses) // steps
    if epochs > 1:
        first, last = losses[:steps].mean(), losses[(epochs - 1) * steps : epochs * steps].mean()
        text = f"{first:.4g} in epoch 1 -> {last:.4g} in epoch {epochs:,}"
    else:
        text = f"{losses[0]:.4g} in step 1 -> {losses[-1]:.4g} in step {len(losses):,}"
    judged = outcome.validation
    if len(judged):
        text += f"; validation {judged[0]:.4g} -> {judged[-1]:.4g}"
    if outcome.best_epoch:
        text += f"; the weights are those of epoch {outcome.best_epoch:,}, {judged[outcome.best_epoch - 1]:.4g}"
    return text
