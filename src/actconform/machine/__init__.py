"""Facts of the machine: processor, memory, GPU, and how oneDNN computes."""
