"""How fast the routes are: timed in interleaved rounds in their workers, with calibrations of the same rounds and the verdicts of the cases."""
