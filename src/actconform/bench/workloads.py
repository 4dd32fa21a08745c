"""What is timed: subjects in two directions at several sizes, each on every route that the user selects."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import msgspec

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import UsageError, near
from actconform.run.select import Selection, asked_for, routes, select
from actconform.types import Case, Kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.plugin.loader import Catalog
    from actconform.types import Aspect

Direction: TypeAlias = Literal["forward", "forward+backward"]
ASPECT_OF: dict[Direction, Aspect] = {"forward": "value", "forward+backward": "gradient"}
DEFAULT_KERNELS = ("relu", "sigmoid", "tanh", "gelu-erf", "gelu-tanh", "silu", "softplus", "softmax")
DEFAULT_MODELS = ("mlp-relu", "image-cnn-softmax2", "autoencoder-relu", "attention-block")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_THROUGHPUT = cast("Aspect", "throughput")  # an aspect of what is timed, of no case that is judged
_HELP = (
    "a pattern is a glob on SUBJECT/throughput/f32/ROUTE, for example 'gelu-*/throughput/f32/*'; models of published size "
    "are included with --full"
)


class Workload(msgspec.Struct, frozen=True):
    """A subject in one direction at one size, the elements of a kernel's x or the batch of a model."""

    subject: str
    direction: Direction
    size: int

    @property
    def id(self) -> str:
        return f"{self.subject} {self.direction} {self.size}"

    def case(self, route: str) -> Case:
        """Return the case that judges the route of this workload."""
        return Case(self.subject, ASPECT_OF[self.direction], "f32", route)


def chosen(catalog: Catalog, wanted: Selection, *, full: bool = False) -> dict[str, list[str]]:
    """Return the routes to time by subject, both in the order of the catalog.

    Without patterns: the default kernels and models, with `full` also those models in published size. Raises UsageError
    naming the word that matches nothing.
    """
    subjects = [*catalog.kernels, *(name for name in catalog.models if full or PUBLISHED not in name)]
    if not wanted.patterns:
        models = [*DEFAULT_MODELS, *(name + PUBLISHED for name in DEFAULT_MODELS)]
        subjects = [name for name in subjects if name in (*DEFAULT_KERNELS, *models)]
    cases = [
        Case(subject, _THROUGHPUT, "f32", route)
        for subject in subjects
        for route in routes(catalog, asked_for(catalog, wanted))
    ]
    cases = [case for case in cases if not case.constants or case.subject in catalog.models]
    for pattern in wanted.patterns:
        if cases and not any(fnmatchcase(case.id, pattern) for case in cases):
            raise UsageError(f"pattern {pattern!r} matches nothing to time{_hint(pattern, cases)}\n{_HELP}")
    routes_by_subject: dict[str, list[str]] = {}
    for case in select(cases, wanted):
        routes_by_subject.setdefault(case.subject, []).append(case.route)
    return routes_by_subject


def workloads(catalog: Catalog, subject: str, sizes: Sequence[int], batches: Sequence[int]) -> list[Workload]:
    """Return the workloads of a subject; a kernel without gradient, or a model with nothing to differentiate, runs forward alone."""
    kernel_or_model = catalog.subject(subject)
    backwards = bool(kernel_or_model.differentiable)
    directions: list[Direction] = ["forward", "forward+backward"] if backwards else ["forward"]
    all_sizes = sizes if isinstance(kernel_or_model, Kernel) else batches
    return [Workload(subject, direction, size) for direction in directions for size in all_sizes]


def numbers(option: str, text: str) -> list[int]:
    """Return the whole numbers of "1K,1M,16M", K being 1024, ascending, each once. Raises UsageError for anything else."""
    sizes = set()
    for word in text.split(","):
        fits = re.fullmatch(r"([1-9][0-9]{0,11})([KMG]?)", word.strip(), re.IGNORECASE)
        if not fits:
            raise UsageError(f"{option} {text}: {word!r} is no size; expected whole numbers from 1, such as 1K,1M,16M")
        sizes.add(int(fits[1]) * UNITS[fits[2].upper()])
    return sorted(sizes)


def shown(size: int) -> str:
    """Return a size as `numbers` reads it: 16M, 1000."""
    unit = next(unit for unit in ("G", "M", "K", "") if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def _hint(pattern: str, cases: Sequence[Case]) -> str:
    words = zip(pattern.split("/"), zip(*(case.id.split("/") for case in cases), strict=True), strict=False)
    hints = [
        f"{word!r}{near(word, sorted(set(names)))}"
        for word, names in words
        if not any(fnmatchcase(name, word) for name in names)
    ]
    return f": nothing is called {', '.join(hints)}" if hints else ""
