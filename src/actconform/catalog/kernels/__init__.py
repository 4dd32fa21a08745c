"""The built-in kernels: definition, parameters, kinks, limits and policy of each, as data.

Policy for all: NaN in, NaN out; at +-inf the limit of the function; f(+-0) = +-0 where the function passes through zero with
a slope, +0 where it is flat there. What a kernel adds to that stands in its `conventions`.
"""

from __future__ import annotations

from actconform.catalog.kernels.piecewise import PIECEWISE
from actconform.catalog.kernels.rows import ROWS
from actconform.catalog.kernels.smooth import SMOOTH
from actconform.catalog.models.zoo import networks
from actconform.plugin.hookspecs import hookimpl
from actconform.types import Kernel  # noqa: TC001  pluggy shows the annotation
from actconform.types.model import Model  # noqa: TC001  as below

UNARY = SMOOTH + PIECEWISE


class Builtin:
    """The catalog as a plugin, loaded through the same hook as anybody's."""

    @hookimpl
    def actconform_kernels(self) -> tuple[Kernel, ...]:
        return UNARY + ROWS

    @hookimpl
    def actconform_models(self) -> tuple[Model, ...]:
        return networks()


def built_in() -> set[str]:
    """Return the names of all subjects of this package: those whose goldens come with it."""
    return {kernel.name for kernel in UNARY + ROWS} | {model.name for model in networks()}
