"""Test vectors: the inputs of every case with their truth and limits, and the goldens that the truth is compared with."""
