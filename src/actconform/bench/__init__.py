"""How fast the routes are: timed in turns in their workers, beside calibrations of the same rounds and the cases' verdicts."""
