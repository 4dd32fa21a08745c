"""The reference models: layer kinds, the checked description, drawn numbers, and the networks themselves."""
