"""Masks by a generator that counts: what is kept follows from an entry's place and a key alone, in whatever order.

Philox2x32 of seven rounds maps a counter and a key, two numbers of 32 bits and one, to two numbers of 32 bits. With so
many rounds it passes TestU01's BigCrush (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2,
3", SC'11, table 2; their library, Random123, has test vectors of it). Those are four numbers of 16 bits, for four time
steps of an entry.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from bench.ops import native

ROUNDS = 7
MULTIPLIER, WEYL, WORD = 0xD256D193, 0x9E3779B9, 0xFFFFFFFF
NUMBERS = 2**16
"""A number is one of so many; an entry is dropped if its is below p times that, rounded."""


def lowest(p: float) -> int:
    """The lowest number that keeps an entry: p to the nearest 2^-16, all for p = 0 and none for p = 1."""
    return round(p * NUMBERS)


def words(key: int) -> tuple[int, int]:
    """A key of 64 bits as Philox takes it: its key, and what the counter's second number is combined with."""
    return key & WORD, (key >> 32) & WORD


def philox(first: Tensor, second: Tensor, key: Tensor | int, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Philox2x32 (Salmon et al. 2011, section 4.3).

    Args:
        first: int64 of 32 bits, the counter's first number.
        second: likewise, its second.
        key: 32 bits.
        rounds: how often it is mixed.

    Returns:
        Two int64 of 32 bits.
    """
    for _ in range(rounds):
        # int64 holds the product's bits, though not its sign.
        product = first * MULTIPLIER
        first, second = (product >> 32 & WORD) ^ key ^ second, product & WORD
        key = key + WEYL & WORD
    return first, second


def keep(
    shape: Sequence[int], key: Tensor, lowest: int, *, fixed: bool, channels: bool, kernel: bool = False
) -> Tensor:
    """What a mask keeps.

    Entry (t, n, c) of pixel i of P has the number 16 (t mod 2) bits up in word (t // 2) mod 2 of Philox of the counter
    ((n P + i) C + c, t // 4), each modulo 2^32.

    Args:
        shape: T, N, C, ... of what is masked; the axes behind C are its pixels.
        key: scalar int64, of 64 bits.
        lowest: see the function of that name.
        fixed: the time steps share the numbers of the first.
        channels: a channel is one entry, without pixels.
        kernel: whether a compiled kernel may do it, where there is one and the key is on the CPU.

    Returns:
        Booleans on the key's device that broadcast against the shape: T is 1 for a fixed mask, the axes after C are 1
        for channels. They lie in memory with C last.
    """
    steps = 1 if fixed else shape[0]
    inner = [1] * (len(shape) - 3) if channels else list(shape[3:])
    entries = [shape[1], *inner, shape[2]]
    count, groups = prod(entries), (steps + 3) // 4
    library = _library() if kernel and key.device.type == "cpu" else None
    if library is not None:
        kept = torch.empty(steps, *entries, dtype=torch.bool)
        library.keep(kept.data_ptr(), steps, count, *words(int(key)), lowest, torch.get_num_threads())
        return kept.movedim(-1, 2)
    low, high = key & WORD, key >> 32 & WORD
    place = torch.arange(count, device=key.device) & WORD
    step = (torch.arange(groups, device=key.device) ^ high).unsqueeze(1)
    pair = torch.stack(philox(place.expand(groups, -1), step, low), 1)
    numbers = torch.stack([pair & 0xFFFF, pair >> 16], 2).reshape(4 * groups, *entries)[:steps]
    return (numbers >= lowest).movedim(-1, 2)


@cache
def _library() -> Any:
    library = native.load("masks")
    if library is not None:
        size, word = ctypes.c_int64, ctypes.c_uint32
        library.keep.argtypes = [ctypes.c_void_p, size, size, word, word, word, ctypes.c_int]
        library.keep.restype = None
    return library
