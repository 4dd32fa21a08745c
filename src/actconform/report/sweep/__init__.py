"""What people and programs read of sweeps: the terminal, a page of maps, a CSV and a LaTeX table of maximal errors."""
