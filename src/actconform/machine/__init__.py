"""Facts of the machine: processor, GPU, and how oneDNN computes."""
