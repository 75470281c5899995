"""Seeds derived from a run's seed by name, so that randomness needs no state to be saved."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *keys: str | int) -> int:
    """The seed for one use of randomness, say ``derive(seed, "augment", epoch)``.

    The same arguments give the same number on any machine, in any process, whatever ran before; different
    ones give numbers that have nothing to do with each other.

    Args:
        seed: the run's seed.
        keys: what the randomness is for, and the epoch, step or layer it is for.

    Returns:
        An integer in [0, 2^63).
    """
    digest = hashlib.sha256(json.dumps([seed, *keys]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *keys: str | int) -> torch.Generator:
    """A fresh generator on `device`, seeded with ``derive(seed, *keys)``.

    CPU and CUDA generators draw different numbers from one seed: what must not depend on the device
    draws on the CPU.
    """
    import torch

    return torch.Generator(device).manual_seed(derive(seed, *keys))


def seed_everything(seed: int, *keys: str | int) -> None:
    """Seed every global generator from (seed, keys), so that no generator's state need be stored.

    Regularizers draw from the global generators: what they draw depends on (seed, epoch, step) alone, and a resumed run
    draws what an uninterrupted one does.
    """
    import numpy as np
    import torch

    derived = derive(seed, *keys)
    torch.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)
