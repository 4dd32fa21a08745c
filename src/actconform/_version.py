"""The version of actconform."""

__version__ = "0.1.0"
