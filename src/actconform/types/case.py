"""What is run: a case, and the route of its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from actconform.types.kernel import Aspect  # noqa: TC001  msgspec reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Bundle: TypeAlias = Mapping[str, NDArray[Any]]

CONSTANTS = "@const"  # after an exporter's name in a route: parameters are constants of the graph
DRIVER_EXPORTER = "authored"  # the graphs that we write: no plugin's exporter bears this name


class Route(NamedTuple):
    """The way of a case to its numbers: BACKEND natively, or EXPORTER+BACKEND through a graph."""

    exporter: str
    """What makes the graph, with its variant; "" on a native route."""
    constants: bool
    """Whether the graph holds its parameters as initializers, as users export it."""
    backend: str
    """What computes, with its variant."""

    @classmethod
    def of(cls, text: str) -> Route:
        """Return the route that is written so: "torch", "tf2onnx+ort-cpu", "tf2onnx@const+ort-cpu"."""
        exporter, _, backend = text.rpartition("+")
        return cls(exporter.removesuffix(CONSTANTS), exporter.endswith(CONSTANTS), backend)

    def __str__(self) -> str:
        if not self.exporter:
            return self.backend
        return f"{self.exporter}{CONSTANTS if self.constants else ''}+{self.backend}"

    @property
    def worker(self) -> str:
        """The backend whose process computes: `backend` without its variant. See also `Catalog.worker`."""
        return base_name(self.backend)

    @property
    def native(self) -> bool:
        """Whether the framework computes by itself, without a graph."""
        return not self.exporter

    @property
    def exported(self) -> bool:
        """Whether a framework's exporter makes the graph: neither natively nor from a graph that we write."""
        return self.exporter not in ("", DRIVER_EXPORTER)


def base_name(name: str) -> str:
    """Return the name of a backend or exporter without its variant: "ort-cpu" of "ort-cpu@1.20"."""
    return name.partition("@")[0]


class Case(msgspec.Struct, frozen=True, order=True):
    """subject x aspect x dtype x route; `id` is safe in a shell, a file name and a URL."""

    subject: str
    aspect: Aspect
    dtype: str
    route: str

    @property
    def id(self) -> str:
        return f"{self.subject}/{self.aspect}/{self.dtype}/{self.route}"

    @property
    def backend(self) -> str:
        """What computes: the last part of the route."""
        return Route.of(self.route).backend

    @property
    def worker(self) -> str:
        """The backend whose process does the case: `backend` without its variant. See also `Catalog.worker`."""
        return Route.of(self.route).worker

    @property
    def exporter(self) -> str | None:
        """What made the graph: the first part of the route, or None on a native one."""
        return Route.of(self.route).exporter or None

    @property
    def constants(self) -> bool:
        """Whether the graph holds its parameters as initializers, as users export it."""
        return Route.of(self.route).constants


class Support(msgspec.Struct, frozen=True):
    """Whether a backend takes a case, and if not, why, in its own words."""

    yes: bool
    reason: str = ""
