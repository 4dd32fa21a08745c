"""What people and programs read of a check of one model: a page, check.json, an overlay for Model Explorer."""
