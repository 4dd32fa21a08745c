"""What people and programs read of a suite: the screen, a page, JSON, ONNX's scoreboard."""
