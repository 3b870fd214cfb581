"""Training batches: stretches of histories, and the detours at their heads."""
