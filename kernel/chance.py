"""Seeded chance: randomness is an argument too."""

from __future__ import annotations

import hashlib
import random


def stream(seed: int, name: str) -> random.Random:
    """Return a generator of its own for `name`, the same for the same seed on every machine and Python.

    Streams are independent: drawing more from one never shifts another.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - a simulation's chance, not a secret
