"""What `bench speed` is asked for: its own settings, told from those of the run that it measures."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from bench.config.compose import given
from bench.config.explain import no_setting
from bench.config.options import groups
from bench.config.schema import Config
from bench.errors import BenchError, nearest
from bench.ranges import Numbers
from bench.speed.peers import PEERS

# What a run's configuration starts from here; the command line wins.
DEFAULTS = {"budget": "paper", "model": "cnn", "data": "cifar10", "logger": "none"}


@dataclass(frozen=True)
class Settings:
    """What `bench speed` is asked for.

    Attributes:
        overrides: of the run's configuration.
        batch_size: images in a step.
        peers: arms beside ours.
        rounds: how often each arm is measured.
        seconds: how long one measurement takes, about, warm-up left out.
    """

    overrides: tuple[str, ...]
    batch_size: int = 50
    peers: tuple[str, ...] = tuple(PEERS)
    rounds: int = 7
    seconds: float = 3.0


def parse(arguments: Sequence[str]) -> Settings:
    """Sort what is ours from what is the run's.

    Raises:
        BenchError: a key, a peer or a number that there is not.
    """
    own: dict[str, Any] = {}
    overrides: dict[str, str] = {}
    names = {field.name for field in dataclasses.fields(Settings)} - {"overrides"}
    known = names | {field.name for field in dataclasses.fields(Config)} | set(groups())
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign:
            raise BenchError(f"cannot read '{argument}': write key=value, as in model=sew")
        if key in names:
            value = ",".join(given([argument])[key])
            own[key] = peers_of(value) if key == "peers" else number(key, value)
        elif key == "trainer.batch_size":
            raise BenchError(f"'{argument}': bench speed has a setting of its own for that, batch_size={value}")
        elif key.isidentifier() and key not in known:
            if difflib.get_close_matches(key, names, cutoff=0.8):
                raise BenchError(f"no setting is called '{key}'. {nearest(key, known)}")
            raise BenchError(no_setting(OmegaConf.structured(Config), key, value, known))
        else:
            overrides[key] = argument
    chosen = {key: f"{key}={value}" for key, value in DEFAULTS.items()} | overrides
    return Settings(tuple(chosen.values()), **own)


def peers_of(text: str) -> tuple[str, ...]:
    """`all`, `none` or names separated by commas."""
    if text in ("all", "none"):
        return tuple(PEERS) if text == "all" else ()
    chosen = [name for name in text.strip("[]").split(",") if name]
    for name in chosen:
        if name not in PEERS:
            raise BenchError(f"no peer is called '{name}'. {nearest(name, ['all', 'none', *PEERS])}")
    return tuple(dict.fromkeys(chosen))


def number(key: str, text: str) -> float | int:
    """A positive number; a whole one for all but `seconds`."""
    try:
        value = float(text) if key == "seconds" else int(text)
    except ValueError:
        raise BenchError(f"{key} is '{text}', it must be a{'' if key == 'seconds' else ' whole'} number") from None
    Numbers().at_least(0 if key == "seconds" else 1, **{key: value})
    return value
