"""A compressor for cccad, offered by entry point: `kind = "conv-gru"`."""
