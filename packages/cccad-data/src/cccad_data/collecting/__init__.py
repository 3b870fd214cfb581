"""Collecting: the contract of a source, the recorder, and units that become shards."""
