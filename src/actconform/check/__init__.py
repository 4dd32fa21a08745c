"""`actconform check`: a user's own model, held against its truth node by node in each runtime."""
