"""Perceptual hashes: small pictures as 64 bits, of which two nearly equal images share most."""

from collections.abc import Iterator
from functools import reduce
from importlib.util import find_spec

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

from pixelwise.optional import optional_module

ROWS, COLUMNS = 256, 1024
"""Images that are compared with each other at once: a tile of the table of all pairs, so that memory stays flat."""


def hashes_available() -> bool:
    """Return whether the packages of perceptual hashes are installed."""
    return find_spec("imagehash") is not None and find_spec("scipy") is not None


def perceptual_hash(thumb: UInt8[np.ndarray, "h w"]) -> int:
    """Return the hash of a grey picture, as a number of 64 bits."""
    bits = optional_module("imagehash").phash(Image.fromarray(thumb)).hash.ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def near_pairs(codes: UInt64[np.ndarray, " n"], distance: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of hashes that differ in at most so many bits."""
    for top in range(0, len(codes), ROWS):
        for left in range(top, len(codes), COLUMNS):
            apart = _bits(codes[top : top + ROWS, None] ^ codes[None, left : left + COLUMNS])
            for i, j in np.argwhere(apart <= distance).tolist():
                if left + j > top + i:
                    yield top + i, left + j


def _bits(values: UInt64[np.ndarray, "a b"]) -> UInt8[np.ndarray, "a b"]:
    """Return how many bits are set."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    table = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)
    return reduce(np.add, (table[(values >> np.uint64(shift)) & np.uint64(0xFFFF)] for shift in (0, 16, 32, 48)))
