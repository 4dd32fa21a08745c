"""What Python programs call: actconform.check."""
