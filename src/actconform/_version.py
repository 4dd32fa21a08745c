"""The version of actconform."""

__version__ = "0.2.0"
