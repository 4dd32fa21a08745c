"""The catalog of kernels, models and experiments, as a plugin like anybody's."""

from __future__ import annotations

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.zoo import networks
from actconform.plugin.hookspecs import hookimpl
from actconform.types import Kernel  # noqa: TC001  pluggy shows the annotation
from actconform.types.model import Model  # noqa: TC001  as above
from actconform.types.training import Experiment  # noqa: TC001  as above


class Builtin:
    """The catalog as a plugin, loaded through the same hook as anybody's."""

    @hookimpl
    def actconform_kernels(self) -> tuple[Kernel, ...]:
        return tuple(KERNELS.values())

    @hookimpl
    def actconform_models(self) -> tuple[Model, ...]:
        return networks()

    @hookimpl
    def actconform_experiments(self) -> tuple[Experiment, ...]:
        return experiments()


def built_in() -> set[str]:
    """Return the names of all subjects of this package: those whose goldens come with it."""
    return {*KERNELS} | {model.name for model in networks()} | {experiment.name for experiment in experiments()}
