"""Train one policy: the loop, its batches, schedules and checkpoints. Imports core and data; knows no run folder."""
