"""Short trainings for tests of backends: right ones are not accused, wrong ones are named."""

from __future__ import annotations

import numpy as np
import pytest
from study_trainer import DefinitionTrainer

from actconform.plugin.training_loop import train
from actconform.testing.short_training import SHORT_OPTIMIZERS, compared_record, first_wrong_part, short_task
from actconform.types.training import Forms


@pytest.mark.parametrize("name", SHORT_OPTIMIZERS)
def test_the_definition_has_no_finding(name):
    task = short_task(optimizer=SHORT_OPTIMIZERS[name])
    assert (task.experiment.steps, task.experiment.epochs, task.keep) == (3, 2, 5)
    assert compared_record(task, train(DefinitionTrainer(task), task)).findings == []


def test_another_form_or_number_is_named_with_its_step():
    class Pushed(DefinitionTrainer):
        def step(self, batch, number):
            loss = super().step(batch, number)
            self._state["head.kernel"] = self._state["head.kernel"] + np.float32(1e-3 * (number == 2))
            return loss

    task = short_task("noise-relu")
    assert first_wrong_part(compared_record(task, train(Pushed(task), task))) == (3, "optimizer")
    falling = short_task(optimizer=SHORT_OPTIMIZERS["decayed"])
    record = train(DefinitionTrainer(falling), falling)
    other = "of gradients" if Forms().momentum == "of updates" else "of updates"
    assert first_wrong_part(compared_record(falling, record, Forms(momentum=other))) == (1, "optimizer")
    with pytest.raises(AssertionError, match="no finding"):
        first_wrong_part(compared_record(falling, train(DefinitionTrainer(falling), falling)))
