"""The contract of a backend: checked case by case in its own process, and reported clause by clause."""
