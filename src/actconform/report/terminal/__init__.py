"""What a run shows on a terminal: progress, tables, findings, figures of throughput."""
