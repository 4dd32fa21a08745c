"""A static site of the runs in a history: the latest report, every case and run under an address of its own, a table to cite."""
