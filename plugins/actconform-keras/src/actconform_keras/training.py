"""Training in Keras: a model that is compiled with an optimizer and a loss of its own, and fitted, as Keras's users do it."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Unsupported
from actconform.plugin.training_loop import stacked_bundles
from actconform.types.model import LOSS
from actconform.types.training import Forms
from actconform.types.training_run import TrainingRecord
from actconform_keras.models import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import keras
    from numpy.typing import NDArray

    from actconform.types import Bundle
    from actconform.types.training import Experiment, Optimizer, OptimizerKind
    from actconform.types.training_run import TrainingTask

STEP_LOSS = "step_loss"  # of this batch alone: what fit reports as "loss" is the mean of the epoch so far

# Under which attribute an optimizer keeps each slot, variable by variable.
ADAM_SLOTS = {"m": "_momentums", "v": "_velocities"}
SLOT_NAMES: dict[OptimizerKind, dict[str, str]] = {
    "sgd": {"momentum": "momentums"},
    "adam": ADAM_SLOTS,
    "adamw": ADAM_SLOTS,
    "rmsprop": {"v": "_velocities"},
}
FORMS: dict[OptimizerKind, Forms] = {
    "sgd": Forms(momentum="of updates"),
    "adam": Forms(epsilon="added to the root"),
    "adamw": Forms(epsilon="added to the root"),
    "rmsprop": Forms(epsilon="inside the root"),
}


class KerasTraining:
    """A model of Keras's layers with an optimizer, ready for one call of `fit`; `compiled` is whether it compiles the step by XLA."""

    def __init__(self, task: TrainingTask, *, compiled: bool = False) -> None:
        experiment = task.experiment
        self._task, self._experiment = task, experiment
        self._network = Network(experiment.model, "f32")
        self._network.assign(task.state)
        self.model = _fitted_class()(self._network, Network(experiment.evaluation, "f32"))
        self._refuse_others()
        self.optimizer = self.make_optimizer(experiment.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        # What `fit` would choose by itself, "auto", depends on whether the machine has a GPU.
        self.model.compile(optimizer=self.optimizer, loss=self._network.loss, jit_compile=compiled)
        by = "Model.fit(jit_compile=True)" if compiled else "Model.fit"
        self.implementation = f"{self._network.text}; keras.optimizers: {type(self.optimizer).__name__}; {by}"

    def make_optimizer(self, rule: Optimizer) -> keras.optimizers.Optimizer:
        """Return the optimizer of keras.optimizers for a rule, which also keeps the gradients that it is given."""
        from keras import optimizers

        rate: Any = rule.learning_rate
        if rule.decay != 1.0:
            rate = optimizers.schedules.ExponentialDecay(rate, rule.decay_steps, rule.decay, staircase=True)
        betas = {"beta_1": rule.beta1, "beta_2": rule.beta2, "epsilon": rule.epsilon}
        match rule.kind:
            case "sgd":
                return showing(optimizers.SGD)(rate, momentum=rule.momentum, nesterov=rule.nesterov)
            case "adam":
                return showing(optimizers.Adam)(rate, **betas)
            case "adamw":
                return showing(optimizers.AdamW)(rate, weight_decay=rule.weight_decay, **betas)
            case "rmsprop":
                return showing(optimizers.RMSprop)(rate, rho=rule.beta2, epsilon=rule.epsilon)

    def fit(self) -> TrainingRecord:
        """Train, and return the record of it; to be called once."""
        from keras import callbacks

        task, experiment = self._task, self._experiment
        batches = _batches_class()(task)
        watch = _watch_class()(self, batches, task.keep)
        stopping = experiment.stopping
        stops = (
            [
                callbacks.EarlyStopping(
                    min_delta=stopping.min_delta, patience=stopping.patience, restore_best_weights=True
                )
            ]
            if stopping
            else []
        )
        history = self.model.fit(
            batches,
            epochs=experiment.epochs,
            shuffle=False,
            validation_data=inputs_and_target(experiment, task.evaluated_on(task.validation)),
            validation_batch_size=experiment.validation,
            callbacks=[watch, *stops],
            verbose=0,
        )
        return TrainingRecord(
            losses=np.asarray(watch.losses, np.float32),
            states=stacked_bundles(watch.states),
            gradients=stacked_bundles(watch.gradients),
            final=self._network.arrays(),
            predictions={
                name: self._predictions(task.evaluated_on(rows))
                for name, rows in (("examples", task.examples), ("validation", task.validation))
            },
            validation_losses=np.asarray(history.history["val_loss"], np.float32),
            forms=FORMS[experiment.optimizer.kind],
            implementation=self.implementation,
            seconds=watch.seconds,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the parameters, running statistics among them, and of the slots as "NAME/SLOT"."""
        state = self._network.arrays()
        for slot, attribute in SLOT_NAMES[self._experiment.optimizer.kind].items():
            if slot in self._experiment.optimizer.slots:
                slots = self._by_name(getattr(self.optimizer, attribute))
                state |= {f"{name}/{slot}": array for name, array in slots.items()}
        return state

    def gradients(self) -> dict[str, NDArray[Any]]:
        """Return the gradients that the optimizer was given last, as "d_NAME"."""
        return {f"d_{name}": array for name, array in self._by_name(self.optimizer.shown).items()}

    def _by_name(self, variables: Iterable[keras.Variable]) -> dict[str, NDArray[Any]]:
        """Return what stands for each trained variable in turn, canonical, by the parameter's name."""
        arrays = {
            trained.path: variable for trained, variable in zip(self.model.trainable_variables, variables, strict=True)
        }
        return {
            name: self._network.array(name, arrays[variable.path])
            for name, variable in self._network.variables.items()
            if variable.path in arrays
        }

    def _predictions(self, rows: Bundle) -> NDArray[Any]:
        x, _ = inputs_and_target(self._experiment, rows)
        return np.array(self.model.predict(x, batch_size=len(next(iter(x.values()))), verbose=0))

    def _refuse_others(self) -> None:
        """Raise `Unsupported` where Keras would train, or predict, what is not asked for."""
        experiment = self._experiment
        trained = {variable.path for variable in self.model.trainable_variables}
        wanted = {self._network.variables[name].path for name in experiment.differentiable}
        if trained != wanted:
            raise Unsupported(f"keras trains {', '.join(sorted(trained ^ wanted))} otherwise than the model does")
        if experiment.model.layer(LOSS).inputs[0] != experiment.evaluation.output:
            raise Unsupported(
                f"keras is fitted to what it predicts: the loss of {experiment.name} reads something else"
            )


def inputs_and_target(experiment: Experiment, tensors: Bundle) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return tensors of a batch as Keras takes them: the inputs by name, and the target."""
    targets = {one.name for one in experiment.model.inputs if one.role == "target"}
    x = {name: array for name, array in tensors.items() if name not in targets}
    return x, np.asarray(tensors[experiment.model.layer(LOSS).inputs[1]])


@cache
def showing(kind: type) -> Any:
    """Return an optimizer of Keras that makes its own step and keeps the gradients that it was given, in `shown`, variable by variable."""
    from keras import ops

    class Showing(kind):  # type: ignore[misc]
        def build(self, variables: list[keras.Variable]) -> None:
            if self.built:
                return
            super().build(variables)
            self.shown = self.add_optimizer_variables(variables, "gradient")

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            grads = list(grads)
            super().apply(grads, trainable_variables)
            for shown, gradient in zip(self.shown, grads, strict=True):
                if gradient is not None:
                    shown.assign(ops.convert_to_tensor(gradient))

    Showing.__name__ = kind.__name__
    return Showing


@cache
def _fitted_class() -> Any:
    import keras

    class Fitted(keras.Model):  # type: ignore[misc]
        """One set of variables with two ways through: in training with the noise that is given, in inference without."""

        def __init__(self, network: Network, inference: Network) -> None:
            super().__init__(name="fitted")
            self._trained = network.keras_model
            self._prediction = network.model.layer(LOSS).inputs[0]
            variables = network.variables
            # In a function: Keras would take the variables of a model in an attribute for some of its own.
            self._inferred: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda inputs: inference.values(
                {**inputs, **{name: variable.value for name, variable in variables.items()}}
            )

        def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:  # noqa: FBT002  as Keras calls it
            values = self._trained(inputs, training=True) if training else self._inferred(inputs)
            return values[self._prediction]

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
            metrics = super().compute_metrics(x, y, y_pred, sample_weight)
            return {**metrics, STEP_LOSS: self.compute_loss(x, y, y_pred, sample_weight)}

    return Fitted


@cache
def _batches_class() -> Any:
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """The batches of one epoch of a task, in its order.

        `fit` sets `epoch` by a callback: `on_epoch_end` is called before the first epoch too, and after the next one's first batch is read.
        """

        def __init__(self, task: TrainingTask) -> None:
            super().__init__()
            self._task, self.epoch = task, 0

        def __len__(self) -> int:
            return self._task.experiment.steps

        def __getitem__(self, index: int) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
            return inputs_and_target(self._task.experiment, self._task.batch(self.epoch * len(self) + index))

    return Batches


@cache
def _watch_class() -> Any:
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        """What each step leaves behind."""

        def __init__(self, training: KerasTraining, batches: Any, keep: int) -> None:
            super().__init__()
            self._training, self._batches, self._keep = training, batches, keep
            self._times: list[float] = []
            self._began = 0.0
            self.losses: list[float] = []
            self.states: list[Bundle] = [training.state()] if keep else []
            self.gradients: list[Bundle] = []

        @property
        def seconds(self) -> float:
            """Of all steps, the first one, which compiles, taken to last as long as the others."""
            after = self._times[1:] or self._times
            return float(np.mean(after) * len(self._times)) if after else 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  as Keras calls it
            self._batches.epoch = epoch

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  as above
            self._began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  as above
            number = len(self.losses)
            self.losses.append(float(logs[STEP_LOSS]))
            self._times.append(time.perf_counter() - self._began)
            if number < self._keep:
                if keras.config.backend() == "jax":  # where the variables are empty while a step is made
                    self.model.jax_state_sync()
                self.states.append(self._training.state())
                self.gradients.append(self._training.gradients())

    return Watch
