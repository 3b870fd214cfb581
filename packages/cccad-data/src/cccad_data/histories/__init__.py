"""Histories: in memory, on disk, as whole datasets, and who writes them."""
