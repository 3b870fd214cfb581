"""Compressors: folds `(state, segment) -> state` with `read(state) -> prefix`. One file each, spec beside module."""
