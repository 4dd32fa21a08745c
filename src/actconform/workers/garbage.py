"""Garbage in cycles, collected while it is made."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OFTEN = (700, 10, 1)  # Python's own thresholds, but that every second look at younger objects is a look at all


@contextmanager
def collected_garbage() -> Iterator[None]:
    """Look often for garbage that is made within, and leave none of it.

    Python looks at all objects once their number has grown by a quarter. Beside the objects of a framework that is never: tf2onnx copies the
    graph for each of its optimizers, nodes and graph refer to each other, and so all copies stay, each with all weights. What there
    was before is left out of the search, so that it costs nothing. A process that has left objects out itself is left alone.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.collect()  # from here on it is what is made that grows
    gc.set_threshold(*OFTEN)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
        gc.unfreeze()
