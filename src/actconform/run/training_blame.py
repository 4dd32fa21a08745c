"""Whose fault a training is, on a route through graphs: the correctly rounded evaluation of a graph tells its fault from the runtime's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from actconform.comparison.wrong_elements import first_wrong
from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import io_names
from actconform.onnx.trainable import statistics_given
from actconform.testdata.training_vectors import (
    INFERENCE,
    OPTIMIZER,
    PARTS,
    STATISTICS,
    JudgedStep,
    inference_vectors,
    judged_rows,
    step_vectors,
)
from actconform.types import DRIVER_EXPORTER, Blame
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT
from actconform.types.training_run import NEXT, RATE, STEP, TrainingRecord

if TYPE_CHECKING:
    from actconform.comparison.wrong_elements import FirstWrong
    from actconform.types import Artifact, Bundle, Case
    from actconform.types.training_run import TrainingTask


def blame_of_training(
    case: Case,
    task: TrainingTask,
    record: TrainingRecord,
    graphs: tuple[Artifact, Artifact] | None,
    first: FirstWrong | None,
) -> Blame:
    """Return whose fault a training is: of a graph the runtime's where the correctly rounded evaluation of the first wrong step is right.

    Where that is wrong too the graph is: ours where its optimizer is, or where we wrote all of it, else the exporter's. `graphs` are those
    of a step and of the model in inference, None on a native route.
    """
    if graphs is None:
        return Blame.FRAMEWORK
    if first is None:
        return Blame.UNDETERMINED
    step, inference = graphs
    try:
        if first.part in PARTS:
            wrong = _wrong_step(case, task, record, step, first)
        else:
            wrong = first.part == INFERENCE and _wrong_inference(case, task, record, inference, first)
    except Unsupported:
        return Blame.UNDETERMINED
    if not wrong:
        return Blame.RUNTIME
    # Running statistics that an exporter left out are computed by nodes of ours.
    written = first.part == STATISTICS and not statistics_given(
        onnx.load_from_string(graphs[0].model).graph, [first.tensor]
    )
    ours = case.exporter == DRIVER_EXPORTER or first.part == OPTIMIZER or written
    return Blame.AUTHORED_GRAPH if ours else Blame.EXPORTER


def _wrong_step(case: Case, task: TrainingTask, record: TrainingRecord, graph: Artifact, first: FirstWrong) -> bool:
    """Tell whether the graph of a step goes wrong in the same part as the runtime."""
    step = JudgedStep(task, record, first.step - 1)
    outputs = _evaluated(
        graph,
        {
            **step.batch,
            **step.before,
            STEP: np.asarray(first.step, np.int64),
            RATE: np.asarray(task.experiment.optimizer.rate(first.step), np.float32),
        },
    )
    following = {name.removeprefix(NEXT): array for name, array in outputs.items() if name.startswith(NEXT)}
    step.after = {**step.before, **following}
    step.gradients = {name: array for name, array in outputs.items() if name.startswith("d_")}
    step.loss = np.asarray(outputs[LOSS])
    again = first_wrong(*step_vectors(task, record.forms, step, DTYPES[case.dtype]), first.step)
    return again is not None and again.part == first.part


def _wrong_inference(
    case: Case, task: TrainingTask, record: TrainingRecord, graph: Artifact, first: FirstWrong
) -> bool:
    """Tell whether the graph in inference gives wrong outputs of the final parameters."""
    judged = judged_rows(task.experiment.evaluation)
    first_rows = {name: array[:judged] for name, array in task.examples.items()}
    rows = {"examples": first_rows, "validation": task.validation}
    outputs = {name: _evaluated(graph, {**task.evaluated_on(array), **record.final}) for name, array in rows.items()}
    predictions = {name: bundle[OUTPUT] for name, bundle in outputs.items()}
    again = TrainingRecord(
        losses=record.losses,
        states=record.states,
        final=record.final,
        predictions=predictions,
        validation_losses=record.validation_losses,
    )
    vectors, given = inference_vectors(task, again, float(outputs["validation"][LOSS]), DTYPES[case.dtype])
    return first_wrong(vectors, given, first.step) is not None


def _evaluated(graph: Artifact, tensors: Bundle) -> Bundle:
    names, _ = io_names(graph.model)
    return CorrectlyRoundedEvaluator(graph.model).forward({name: tensors[name] for name in names})
