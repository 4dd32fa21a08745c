"""Faults of training in torch's loop: the first wrong step, its part, and what it looks like, as the evidence says them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest

from actconform.comparison.steps import compare_training
from actconform.plugin.loader import load_plugins
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import free_running
from actconform.types.dtypes import DTYPES
from actconform_faulty import FaultyTorch, plugin
from actconform_faulty.backends import UnusualTorch

if TYPE_CHECKING:
    from actconform.comparison.steps import ComparedTraining
    from actconform.types.training_run import TrainingTask

pytest.importorskip("torch")

F32 = DTYPES["f32"]
REGISTERED = {fault.name: fault for fault in plugin.actconform_faults()}
FIRST_WRONG = {
    "adam-uncorrected": (1, "optimizer", "Adam without bias correction"),
    "epsilon-inside": (1, "optimizer", "epsilon inside the root"),
    "bias-step-late": (1, "optimizer", "the bias is corrected as of step 2"),
    "gradient-for-mean": (2, "optimizer", "the mean of gradients is not used"),
    "coupled-decay": (1, "optimizer", "weight decay is coupled: added to the gradient (L2)"),
    "no-decay": (1, "optimizer", "weight decay is left out"),
    "dampened": (2, "optimizer", "momentum with dampening"),
    "nesterov-plain": (1, "optimizer", "plain momentum, and not Nesterov's"),
    "beta2": (1, "optimizer", "beta1 and beta2 are 0.9 and 0.99"),
    "centered": (1, "optimizer", "RMSprop is centred"),
    "never-updated": (1, "optimizer", "left as they were"),
    "rate-doubled-later": (7, "optimizer", "the step is 2 times as long"),
    "rate-early": (4, "optimizer", "the learning rate is 0.005, that of step 5, and not 0.01"),
    "rate-late": (5, "optimizer", "the learning rate is 0.01, that of step 4, and not 0.005"),
    "updated-twice": (1, "optimizer", "the step is made twice"),
    "gradient-of-before": (2, "optimizer", "it steps by the gradient of step 1"),
    "update-float16": (1, "optimizer", "rounded to float16"),
    "stale-batch": (2, "loss", "computed of the batch of step 1"),
    "last-row-left-out": (1, "loss", "computed of all rows of the batch but the last"),
    "mask-reused": (2, "loss", "the dropout mask) of step 1 again"),
    "training-loss-summed": (1, "loss", "summed over the 16 rows of the batch, and not averaged"),
    "loss-after": (1, "loss", "computed of the parameters after the step"),
    "gradient-summed": (1, "gradient", "summed over the 16 rows of the batch, and not averaged"),
    "accumulated": (2, "gradient", "accumulated and not cleared"),
    "clipped-norm": (1, "gradient", "to a norm of 0.5: clipped"),
    "clipped-value": (1, "gradient", "clipped to 0.01"),
    "gradient-decayed": (1, "gradient", "a weight decay in the gradient"),
    "nan-at-step-5": (5, "gradient", ""),
    "statistics-twice": (1, "batch statistics", "updated twice"),
    "statistics-still": (1, "batch statistics", "not updated"),
    "validation-in-training": (0, "inference", "the model in training: batch statistics"),
    "last-restored": (0, "inference", "the parameters of the last epoch"),
    "own-beginning": (0, "initial state", ""),
}
SHORTER = {"images": {"epochs": 1, "judged": 3, "examples": 48, "validation": 16}, "map": {"epochs": 1, "judged": 3}}
UNUSUAL = [
    name for name in REGISTERED if name.startswith("unusual-torch@") and "/training/" in REGISTERED[name].cases[0]
]


@cache
def task_of(subject: str) -> TrainingTask:
    experiment = load_plugins().experiments[subject]
    return training_task(msgspec.structs.replace(experiment, **SHORTER.get(subject.partition("-")[0], {})))


def compared(full: str, case: str) -> ComparedTraining:
    kind = UnusualTorch if full.startswith("unusual") else FaultyTorch
    task = task_of(case.partition("/")[0])
    record = kind().variant(full.partition("@")[2]).train(task)
    return compare_training(task, record, free_running(task, record.forms, F32), F32)


@pytest.mark.parametrize("name", FIRST_WRONG)
def test_the_first_wrong_step_and_part_are_those_of_the_fault(name: str) -> None:
    fault = REGISTERED[f"faulty-torch@{name}"]
    step, part, words = FIRST_WRONG[name]
    result = compared(fault.name, fault.cases[0])
    assert result.first is not None
    assert result.first.part == part
    assert result.first.step == step or not step
    named = [finding for finding in result.findings if finding.tensor == fault.tensor]
    assert {finding.class_ for finding in named} & set(fault.findings)
    assert any(words in finding.evidence for finding in named)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_trains_otherwise_and_well_is_not_accused(name: str) -> None:
    for case in REGISTERED[name].cases:
        assert compared(name, case).findings == []


def test_a_variant_without_a_training_fault_trains_as_torch_does() -> None:
    result = compared("faulty-torch@relu-leaky" if "faulty-torch@relu-leaky" in REGISTERED else _other(), "blobs-sgd/")
    assert result.findings == []


def _other() -> str:
    return next(
        name
        for name in REGISTERED
        if name.startswith("faulty-torch@") and "/training/" not in REGISTERED[name].cases[0]
    )
