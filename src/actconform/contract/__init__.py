"""The contract of a backend: asked of it case by case in its own process, and told clause by clause."""
