"""A job runner: in this process, in several, or on a cluster; it knows cores and GPUs, not what the jobs are for."""
