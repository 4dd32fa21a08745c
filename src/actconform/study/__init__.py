"""What training makes of every kernel in every role: the variants of an experiment, trained over several seeds, and measured."""
