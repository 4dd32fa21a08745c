"""What an experiment in training is, as data: model, optimizer, batches, early stopping, claims."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import msgspec

from actconform.types.model import Model  # noqa: TC001  msgspec reads the annotations

OptimizerKind: TypeAlias = Literal["sgd", "adam", "adamw", "rmsprop"]
EpsilonForm: TypeAlias = Literal["added to the corrected root", "added to the root", "inside the root"]
MomentumForm: TypeAlias = Literal["of gradients", "of updates"]
DataSet: TypeAlias = Literal["noise", "blobs", "images", "signals", "map", "classes", "bits"]
DATA_SET_NAMES: tuple[str, ...] = get_args(DataSet)
Measure: TypeAlias = Literal[
    "loss",
    "first loss",
    "validation loss",
    "accuracy",
    "validation accuracy",
    "largest parameter change",
    "dead units",
    "gradient ratio",
    "rank deficiency",
]

SLOTS: dict[tuple[OptimizerKind, bool], tuple[str, ...]] = {
    ("sgd", False): (),
    ("sgd", True): ("momentum",),
    ("adam", False): ("m", "v"),
    ("adamw", False): ("m", "v"),
    ("rmsprop", False): ("v",),
}
"""The slots of each kind of optimizer, without and with momentum: what it keeps of every parameter from step to step."""


class Optimizer(msgspec.Struct, frozen=True, kw_only=True):
    """A rule by which a step changes parameters, with every number stated. Its definition: oracle/training/optimizers.py.

    Step t, from 1 on, has the learning rate `learning_rate` times `decay` for each whole `decay_steps` of the steps before it.
    """

    kind: OptimizerKind
    learning_rate: float
    momentum: float = 0.0
    """Of sgd; 0 keeps nothing."""
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    """Of adam and adamw; of rmsprop the share of the mean square that is kept."""
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    """Of adamw: the share of each parameter, times the learning rate, that a step takes away."""
    decay: float = 1.0
    decay_steps: int = 1

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of what is kept of each parameter."""
        return SLOTS[self.kind, self.momentum > 0.0]

    @property
    def about(self) -> str:
        """The rule and the numbers that are not its defaults, in a few words."""
        words = [f"{self.kind} {self.learning_rate:g}"]
        words += [f"{'Nesterov ' * self.nesterov}momentum {self.momentum:g}"] if self.momentum else []
        words += [f"weight decay {self.weight_decay:g}"] if self.weight_decay else []
        words += [f"times {self.decay:g} after each {self.decay_steps} steps"] if self.decay != 1.0 else []
        return ", ".join(words)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.learning_rate * self.decay ** ((step - 1) // self.decay_steps)


class Forms(msgspec.Struct, frozen=True, kw_only=True):
    """Where frameworks define the same optimizer in several ways, the ones that a backend follows.

    epsilon: Adam adds it to sqrt(v / (1 - beta2^t)), as algorithm 1 of Kingma and Ba 2015 and torch have it, or to sqrt(v), as the formula
    before their section 2.1 and Keras; RMSprop adds it to sqrt(v) or, as Keras, to v. momentum: a mean of gradients, multiplied by the
    learning rate in each step, as in torch, or of whole updates, as in Keras; the two differ while the learning rate changes. variance: what
    enters the running variance of a batch normalization, the biased one of the batch, by which it normalizes, or, as in torch, the unbiased one.
    """

    epsilon: EpsilonForm = "added to the corrected root"
    momentum: MomentumForm = "of gradients"
    variance: Literal["biased", "unbiased"] = "biased"


class EarlyStopping(msgspec.Struct, frozen=True, kw_only=True):
    """When training ends before its last epoch: after `patience` epochs whose validation loss was not `min_delta` below the best one.

    The weights of the best epoch are restored, also where training came to its last epoch.
    """

    min_delta: float = 0.001
    patience: int = 30


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What training is to show: a measure of it, and the number that it must not fall below, or not exceed.

    `text` says what is claimed, `published` the number in the text that claims it.
    """

    text: str
    measure: Measure
    at_least: float = float("-inf")
    at_most: float = float("inf")
    published: str = ""

    @property
    def wanted(self) -> str:
        """The limits in words: at least so much, at most so much, or both."""
        limits = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {limit:g}" for words, limit in limits if math.isfinite(limit))

    def holds(self, value: float) -> bool:
        """Tell whether a measure is within both; NaN is not."""
        return self.at_least <= value <= self.at_most


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A model, the data that it learns from, and how: every number stated, so that all backends do the same.

    `data` names a data set of testdata/datasets.py. Each epoch goes once through the training examples, in batches of `batch`, those
    that remain left out, in an order drawn for each epoch where `shuffled`. `evaluation` is the same network as `model` in inference.
    """

    name: str
    source: str
    model: Model
    evaluation: Model
    data: DataSet
    examples: int
    validation: int
    batch: int
    epochs: int
    optimizer: Optimizer
    shuffled: bool = True
    stopping: EarlyStopping | None = None
    judged: int = 20
    """How many steps, from the first on, are judged each from the state before it."""
    free: int = 20
    """How many losses, from the first on, are compared with those of the truth trained by itself; further on healthy paths part."""
    claims: tuple[Claim, ...] = ()
    seed: int = 0

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The names of the parameters that a step changes by gradient."""
        return tuple(parameter.name for parameter in self.model.parameters if parameter.trainable)

    @property
    def about(self) -> str:
        """What trains, on which data and how, in one line."""
        stops = f" at most, ended after {self.stopping.patience} without gain, the best kept" if self.stopping else ""
        return (
            f"{self.model.name} on {self.data}: {self.examples:,} examples in batches of {self.batch}, "
            f"{self.epochs} epochs{stops}, {self.optimizer.about}"
        )

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return self.examples // self.batch

    @property
    def work(self) -> int:
        """How many numbers the layers of all steps have: what a training takes grows with it."""
        return self.steps * self.epochs * self.batch * sum(math.prod(shape) for shape in self.model.shapes.values())

    @property
    def free_steps(self) -> int:
        """How many losses are compared: no more than there are steps."""
        return min(self.free, self.steps * self.epochs)
