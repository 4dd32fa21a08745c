"""The truth of models at run time: values and hand-derived vector-Jacobian products of every kind of layer, in float64."""

from actconform._renamed import moved

__getattr__ = moved(__name__)  # its names before 0.2
