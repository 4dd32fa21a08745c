"""What a step of training costs in ONNX Runtime, by one graph, beside torch's own eager one, in workers, in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.catalog.experiments import experiments
from actconform.onnx.author.model import author_model
from actconform.run.training_case import graphs_of
from actconform.testdata.training_tasks import training_task
from actconform.types import Case
from actconform.workers.client import Worker
from actconform.workers.protocol import TrainingJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.training import Experiment

    Line = tuple[str, float, float]

TIMED = {"noise-relu@published": 32, "images-sigmoid@published": 2, "signals-relu@published": 8, "map-attention": 32}
"""Experiments, and how many steps a round of each has."""
ROUNDS = 5
TIMEOUT = 120.0
LIMIT = 1.5


def training_steps() -> Iterator[Line]:
    """A step in ONNX Runtime (forward, backward, update, gradients shown) as a multiple of torch's eager one, one thread each.

    Batches and losses come and go as numpy arrays in both; the state stays in torch, and goes in and out of ONNX Runtime.
    """
    with Worker("torch") as torch, Worker("ort-cpu") as ort:
        for name, steps in TIMED.items():
            experiment = shortened(next(each for each in experiments() if each.name == name), steps)
            jobs = (torch, _job(experiment, "torch")), (ort, _job(experiment, "authored+ort-cpu"))
            best = [float("inf")] * 2
            for _ in range(ROUNDS):
                for index, (worker, job) in enumerate(jobs):
                    best[index] = min(best[index], _seconds(worker, job))
            figures = f"{1e3 * best[1]:.2f} ms against {1e3 * best[0]:.2f} ms"
            yield f"step of training {name}, ort-cpu / torch ({figures})", best[1] / best[0], LIMIT


def shortened(experiment: Experiment, steps: int) -> Experiment:
    """Return an experiment of one epoch of so many steps, all its other numbers the same."""
    batch = experiment.batch
    return msgspec.structs.replace(
        experiment, examples=steps * batch, validation=batch, epochs=1, stopping=None, judged=0
    )


def _job(experiment: Experiment, route: str) -> TrainingJob:
    case, task = Case(experiment.name, "training", "f32", route), training_task(experiment)
    if case.exporter is None:
        return TrainingJob(case, task, None, None)
    graphs, breaches = graphs_of(experiment, lambda model: author_model(model, "f32"))
    if graphs is None:
        raise RuntimeError(f"{experiment.name}: {breaches}")
    return TrainingJob(case, task, graphs.step, graphs.inference)


def _seconds(worker: Worker, job: TrainingJob) -> float:
    outcome = worker.train(job, TIMEOUT)
    if outcome.record is None:
        raise RuntimeError(f"{job.case.id}: {outcome.failure}")
    return outcome.record.seconds / len(outcome.record.losses)
