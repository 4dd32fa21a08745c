"""One process a backend, and what is said to it."""
