"""The report on a terminal: progress, tables, findings, benchmark results."""
