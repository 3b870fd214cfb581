"""The stages of a run, one file each: what is done, once for the same inputs."""
