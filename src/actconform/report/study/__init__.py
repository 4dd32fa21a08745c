"""What people and programs read of a study of kernels in training: a page, study.csv, tables on the terminal."""
