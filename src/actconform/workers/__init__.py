"""One process a backend, and the messages to and from it."""
