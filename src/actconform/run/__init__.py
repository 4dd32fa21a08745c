"""A run: which cases are selected, how each goes down the line, what is recorded, and how an interrupted run goes on."""

from actconform._renamed import moved

__getattr__ = moved(__name__)  # its names before 0.2
