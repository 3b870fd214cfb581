"""The laws of every kind of part that a policy is made of, as checks that ours and every plugin run."""
