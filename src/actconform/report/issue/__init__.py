"""What goes with a bug report: a folder that shows the finding alone, and the text."""
