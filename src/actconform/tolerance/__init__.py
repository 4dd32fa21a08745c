"""Limits, before anything has run: units and tiers, bounds of rows and layers by running-error analysis, ULP."""
