"""What is asked of a hidden state or of the latents: one file for each head; those of actions are a kind of part."""
