"""Keyed hashes and permutations of integers, vectorised, without state. What is permuted is not known here."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ROUNDS = 8
_RANKED = 32  # ranges up to this size are ranked
_ROUND_KEYS = np.arange(_ROUNDS, dtype=np.uint64) * _MIX_2


def derive_keys(count: int, *words: int) -> np.ndarray:
    """`count` uint64 keys from whole numbers >= 0; the same on every machine and numpy version.

    Raises:
        ValueError: where a number is negative.
    """
    if min(words) < 0:
        raise ValueError(f"seeds and epochs are whole numbers >= 0, got {words}")
    return np.random.SeedSequence(words).generate_state(count, np.uint64)


def keyed_hash(values: np.ndarray, key: np.uint64 | np.ndarray) -> np.ndarray:
    """A uint64 hash of each value of a uint64 array under `key`: the finaliser of SplitMix64 (Steele et al., 2014).

    One key serves all values, or an array of keys each its own.
    """
    mixed = (values ^ key) + _GOLDEN  # arrays wrap modulo 2**64 silently, as is meant
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def permute(values: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Images of `values` under the permutation of range(size) that `keys` select.

    A Feistel network permutes the smallest power of two that holds the range; a value that leaves the range is sent
    through again until it returns (cycle walking), which keeps the map a bijection of the range (Black and Rogaway,
    2002). The power of two is less than twice the size, so a value needs fewer than two passes on average.

    Args:
        values: int64 (K,), each in [0, size).
        size: at least 1.
        keys: uint64, one per round, from derive_keys(permutation_rounds(), ...).

    Returns:
        int64 (K,).
    """
    bits = (size - 1).bit_length()
    if bits == 0:
        return values.astype(np.int64)
    result = _feistel(values.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(result >= np.uint64(size))
    while len(outside):
        walked = _feistel(result[outside], bits, keys)
        result[outside] = walked
        outside = outside[walked >= np.uint64(size)]
    return result.astype(np.int64)


def permute_within(values: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Images of values under permutations of many ranges: each pair of a size and a key selects one of range(size).

    The construction is that of `permute`, with the halves of each value as wide as its own range asks for. Of a
    few dozen values such halves mix badly (of 8, some pairs came 30 % too often): there the hashes of all are ranked.

    Args:
        values: int64 (K,), each in [0, its size).
        sizes: int64 (K,), each at least 1.
        keys: uint64 (K,).

    Returns:
        int64 (K,).
    """
    result = np.empty(len(values), dtype=np.int64)
    few = sizes <= _RANKED
    result[few] = _rank(values[few], sizes[few], keys[few])
    many = np.flatnonzero(~few)
    bits = np.frexp((sizes - 1).astype(np.float64))[1].astype(np.uint64)  # the exponent is the bit length
    mixed, limits = values.astype(np.uint64), sizes.astype(np.uint64)
    while len(many):
        mixed[many] = _feistel_each(mixed[many], bits[many], keys[many])
        inside = mixed[many] < limits[many]
        result[many[inside]] = mixed[many[inside]]
        many = many[~inside]
    return result


def permutation_rounds() -> int:
    """How many keys `permute` takes. Even, so that unequal halves return to their places."""
    return _ROUNDS


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """One pass over a domain of 2**bits: each round hashes the low half into the high half and swaps them."""
    low_bits, high_bits = (bits + 1) // 2, bits // 2
    low = values & np.uint64((1 << low_bits) - 1)
    high = values >> np.uint64(low_bits)
    for key in keys:
        mask = np.uint64((1 << high_bits) - 1)
        high, low = low, (high ^ (keyed_hash(low, key) >> np.uint64(32))) & mask
        high_bits, low_bits = low_bits, high_bits
    return (high << np.uint64(low_bits)) | low


def _feistel_each(values: np.ndarray, bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`_feistel` with a domain and a key of its own for each value."""
    one = np.uint64(1)
    low_bits, high_bits = (bits + one) >> one, bits >> one
    low, high = values & ((one << low_bits) - one), values >> low_bits
    for round_key in _ROUND_KEYS:
        mixed = keyed_hash(low, keys + round_key) >> np.uint64(32)
        high, low = low, (high ^ mixed) & ((one << high_bits) - one)
        high_bits, low_bits = low_bits, high_bits
    return (high << low_bits) | low


def _rank(values: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """How many of the hashes of range(size) are below the value's own: a permutation where no two are equal.

    The hash is a bijection, so no two are.
    """
    own = keyed_hash(values.astype(np.uint64), keys)
    ranks = np.zeros(len(values), dtype=np.int64)
    for other in range(int(sizes.max(initial=0))):
        others = keyed_hash(np.full(len(values), other, dtype=np.uint64), keys)
        ranks += (others < own) & (other < sizes)
    return ranks
