"""How the values of a space become vectors: one file for each encoder, a kind of part."""
