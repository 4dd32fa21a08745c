"""One function of the user's, called in this process, against the truth of a kernel or of a definition of its own."""
