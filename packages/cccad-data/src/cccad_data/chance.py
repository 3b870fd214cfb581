"""Randomness by name: a counter-based stream for every (seed, purpose, task), whatever else is drawn beside it."""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the Philox stream of *seed* and *names*: the same on every platform, in any order, in any process."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def seed_of(seed: int, *names: str) -> int:
    """Return a 31-bit seed for a consumer that takes an integer, such as `vector_env.reset`."""
    return int(generator(seed, *names).integers(2**31))
