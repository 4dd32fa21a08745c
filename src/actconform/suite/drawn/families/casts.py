"""Casts between element types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.suite.drawn.drawer import ANY, EVERYTHING, Drawer, element_type
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import DrawnNode


@drawn_operator("Cast")
def _cast(d: Drawer) -> DrawnNode:
    """Of any number: what an integer type does not reach is not judged, for the standard leaves it open."""
    source, target = d.dtype(EVERYTHING), d.choice(EVERYTHING)
    return d.node([d.array(d.shape(), source, ANY)], {"to": element_type(target)})


@drawn_operator("CastLike", since=15)
def _cast_like(d: Drawer) -> DrawnNode:
    source, target = d.dtype(EVERYTHING), d.choice(EVERYTHING)
    return d.node([d.array(d.shape(), source, ANY), d.array((1,), target)])
