"""What a file from outside must not be able to do."""

from pathlib import Path

import numpy as np


class Exploit:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def count_refusals(path, load, error):
    """Damage three bytes of a file 600 times; count how often reading it raises the error."""
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except error:
            n_refused += 1
    return n_refused
