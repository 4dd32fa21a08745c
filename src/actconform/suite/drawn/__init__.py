"""Operators of the standard at drawn attributes, shapes, element types and values."""
