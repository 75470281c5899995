"""The generator behind masks: published test vectors, its definition in whole numbers, compiled against torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ops import masks

needs_compiler = pytest.mark.skipif(masks._library() is None, reason="no C++ compiler")


def philox(first: int, second: int, key: int, rounds: int) -> tuple[int, int]:
    """Philox2x32 in Python's whole numbers."""
    for _ in range(rounds):
        high, low = divmod(0xD256D193 * first, 2**32)
        first, second = high ^ key ^ second, low
        key = (key + 0x9E3779B9) % 2**32
    return first, second


@pytest.mark.parametrize(
    ("rounds", "counter", "key", "wanted"),
    [
        (7, (0, 0), 0, (0x257A3673, 0xCD26BE2A)),
        (7, (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0xAB302C4D, 0x3DC9D239)),
        (7, (0x243F6A88, 0x85A308D3), 0x13198A2E, (0xBEDBBE6B, 0xE4C770B3)),
        (10, (0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)),
        (10, (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        (10, (0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_the_vectors_of_random123(rounds: int, counter: tuple[int, int], key: int, wanted: tuple[int, int]) -> None:
    """Its file kat_vectors, philox2x32."""
    assert philox(*counter, key, rounds) == wanted
    found = masks.philox(*map(torch.tensor, counter), key, rounds)
    assert tuple(map(int, found)) == wanted


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 20)),
    inner=st.sampled_from([(), (3,), (2, 3)]),
    key=st.integers(-(2**63), 2**63 - 1),
    lowest=st.sampled_from([0, 1, 6554, 32768, 65535, 65536]),
    fixed=st.booleans(),
    channels=st.booleans(),
)
def test_what_is_kept_by_its_definition(
    shape: tuple[int, int, int], inner: tuple[int, ...], key: int, lowest: int, fixed: bool, channels: bool
) -> None:
    steps, images, units = shape
    full = (*shape, *inner)
    found = [
        masks.keep(full, torch.tensor(key), lowest, fixed=fixed, channels=channels, kernel=kernel)
        for kernel in (False, True)
    ]
    assert torch.equal(*found)
    pixels = 1 if channels else torch.Size(inner).numel()
    assert found[0].shape == (1 if fixed else steps, images, units, *([1] * len(inner) if channels else inner))
    flat = found[0].reshape(-1, images, units, pixels).tolist()
    low, high = key % 2**32, (key >> 32) % 2**32
    for t, n, c, i in {
        (0, 0, 0, 0),
        (len(flat) - 1, images - 1, units - 1, pixels - 1),
        (len(flat) // 2, 0, units // 2, 0),
    }:
        pair = philox((n * pixels + i) * units + c, t // 4 ^ high, low, 7)
        number = pair[t // 2 % 2] >> 16 * (t % 2) & 0xFFFF
        assert flat[t][n][c][i] == (number >= lowest)


@needs_compiler
def test_threads_draw_the_same() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            key = torch.tensor(7)
            found.append(masks.keep((5, 3, 19, 4, 4), key, 20000, fixed=False, channels=False, kernel=True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_p_to_the_nearest_2_to_the_minus_16() -> None:
    assert [masks.lowest(p) for p in (0.0, 0.1, 0.5, 1.0)] == [0, 6554, 32768, 65536]


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_entries_are_kept_independently(p: float) -> None:
    """Shares over 400,000 entries, and how often neighbours agree along each axis and between two keys: each within
    five standard errors of what independence gives."""
    shape = (8, 10, 50, 10, 10)
    one, other = (masks.keep(shape, torch.tensor(key), masks.lowest(p), fixed=False, channels=False) for key in (1, 2))
    assert one.float().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / one.numel()) ** 0.5)
    agree = p**2 + (1 - p) ** 2
    pairs = [(one.narrow(axis, 1, size - 1), one.narrow(axis, 0, size - 1)) for axis, size in enumerate(shape)]
    for a, b in [*pairs, (one, other)]:
        assert (a == b).float().mean().item() == pytest.approx(agree, abs=5 * (0.25 / a.numel()) ** 0.5)
