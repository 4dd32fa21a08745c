"""The rules that come with actconform, by subject."""
