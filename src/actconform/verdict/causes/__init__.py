"""Known causes of deviations: formulas by which implementations compute, and what each may excuse."""
