"""The data sets that experiments train on, each made from a named seed, by arithmetic that every machine does alike.

No function here is one of the C library's: exp and its like differ in the last bit from machine to machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from actconform.testdata.regimes import normal, raw, uniform

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types.model import Model, Shape

    F32 = NDArray[np.float32]
    Rows: TypeAlias = dict[str, F32]
    Make: TypeAlias = Callable[[str, int, dict[str, Shape]], Rows]

CENTERS = ((15.0, 0.0), (15.0, 15.0), (0.0, 15.0), (30.0, 15.0))
BLOB_DEVIATION = 1.5
STRIPES = (3, 6)  # pixels of a period, both included
IMAGE_NOISE = 0.5
BURST_SHARE = 0.0555  # of a signal's numbers that lie in a burst
BURST_WIDTH = 4
BURST = (60.0, 300.0)  # how high one is
MAP_NOISE = 0.1


def draw_rows(name: str, stream: str, rows: int, model: Model) -> Rows:
    """Return so many rows of a data set by input of the model, float32. Raises ValueError for a name that there is not."""
    shapes = {one.name: one.shape for one in model.inputs if one.role != "noise"}
    if name not in DATA_SETS:
        raise ValueError(f"no data set is called {name!r}; there are {', '.join(DATA_SETS)}")
    drawn = DATA_SETS[name](f"{name}/{stream}", rows, shapes)
    return {name: np.ascontiguousarray(array, np.float32).reshape(rows, *shapes[name]) for name, array in drawn.items()}


def _noise(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Inputs and targets that have nothing to do with each other: all that can be learned is rote."""
    return {name: normal(f"{stream}/{name}", rows * int(np.prod(shape)), 1.0) for name, shape in shapes.items()}


def _blobs(stream: str, rows: int, _: dict[str, Shape]) -> Rows:
    """Four Gaussian clusters in the plane, and which one a point is of."""
    cluster = _choice(f"{stream}/cluster", rows, len(CENTERS))
    points = np.array(CENTERS)[cluster] + normal(f"{stream}/x", rows * 2, BLOB_DEVIATION).reshape(rows, 2)
    return {"x": points.astype(np.float32), "target": np.eye(len(CENTERS), dtype=np.float32)[cluster]}


def _images(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Stripes across or along, of any period, phase and colour, in noise: two classes, which no single pixel tells apart."""
    side, _, channels = shapes["x"]
    vertical = raw(f"{stream}/class", rows) >> np.uint64(63)
    period = STRIPES[0] + _choice(f"{stream}/period", rows, STRIPES[1] - STRIPES[0] + 1)
    phase = _choice(f"{stream}/phase", rows, STRIPES[1])
    along = ((np.arange(side) + phase[:, None]) % period[:, None] * 2 < period[:, None]) * 2.0 - 1.0
    stripes = np.where(vertical[:, None, None], along[:, None, :], along[:, :, None])
    colour = uniform(f"{stream}/colour", rows * channels, 0.5, 1.0).reshape(rows, 1, 1, channels)
    noise = normal(f"{stream}/noise", rows * side * side * channels, IMAGE_NOISE).reshape(rows, side, side, channels)
    target = np.eye(2)[vertical.astype(int)] if shapes["target"] == (2,) else vertical[:, None]
    return {"x": (stripes[..., None] * colour + noise).astype(np.float32), "target": target.astype(np.float32)}


def _signals(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Quiet signals with rare, high bursts, seen by all channels: mean absolute value about 12, mean square about 2,090; target = input."""
    _, width, channels = shapes["x"]
    quiet = np.abs(normal(f"{stream}/quiet", rows * width * channels, 3.0)).reshape(rows, width, channels)
    places = rows * width
    starts = (uniform(f"{stream}/start", places, 0.0, 1.0) < BURST_SHARE / BURST_WIDTH).reshape(rows, width)
    height = uniform(f"{stream}/height", places, *BURST).reshape(rows, width) * starts
    bursts = np.sum([np.roll(height, shift, axis=1) for shift in range(BURST_WIDTH)], axis=0)
    x = (quiet + bursts[..., None] * np.linspace(0.75, 1.25, channels)).astype(np.float32)
    return {"x": x, "target": x}


def _map(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Targets that are a fixed function of the inputs, the same for all streams of the data set: products of sums, and some noise."""
    name = stream.partition("/")[0]
    drawn = {
        one: normal(f"{stream}/{one}", rows * int(np.prod(shape)), 1.0)
        for one, shape in shapes.items()
        if one != "target"
    }
    x = np.concatenate([array.reshape(rows, -1) for array in drawn.values()], axis=1).astype(np.float64)
    width = int(np.prod(shapes["target"]))
    first, second = (
        normal(f"{name}/map/{k}", x.shape[1] * width, x.shape[1] ** -0.5).reshape(x.shape[1], width) for k in range(2)
    )
    noise = normal(f"{stream}/noise", rows * width, MAP_NOISE).reshape(rows, width)
    return {**drawn, "target": (x @ first * (1.0 + 0.5 * (x @ second)) + noise).astype(np.float32)}


def _classes(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Which of a few fixed, noisy prototypes a row is of."""
    (width,), (classes,) = shapes["x"], shapes["target"]
    chosen = _choice(f"{stream}/class", rows, classes)
    prototypes = _prototypes("classes", classes, width)
    x = prototypes[chosen] + normal(f"{stream}/x", rows * width, 0.75).reshape(rows, width)
    return {"x": x.astype(np.float32), "target": np.eye(classes, dtype=np.float32)[chosen]}


def _bits(stream: str, rows: int, shapes: dict[str, Shape]) -> Rows:
    """Noisy prototypes, and as target the signs of their numbers, as bits: what a discrete latent variable can hold."""
    (width,) = shapes["x"]
    chosen = _choice(f"{stream}/class", rows, 6)
    prototypes = _prototypes("bits", 6, width)
    x = prototypes[chosen] + normal(f"{stream}/x", rows * width, 0.25).reshape(rows, width)
    return {"x": x.astype(np.float32), "target": (prototypes[chosen] > 0.0).astype(np.float32)}


def _prototypes(name: str, count: int, width: int) -> F32:
    return normal(f"{name}/prototypes", count * width, 1.0).reshape(count, width)


def _choice(stream: str, n: int, count: int) -> NDArray[np.int64]:
    return ((raw(stream, n) >> np.uint64(32)) % np.uint64(count)).astype(np.int64)


DATA_SETS: dict[str, Make] = {
    "noise": _noise,
    "blobs": _blobs,
    "images": _images,
    "signals": _signals,
    "map": _map,
    "classes": _classes,
    "bits": _bits,
}
