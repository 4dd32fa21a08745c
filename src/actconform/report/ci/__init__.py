"""What a job of continuous integration tells: what is new against the last run of the base branch."""
