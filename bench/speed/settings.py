"""What `bench speed` is asked for: its own settings, told from those of the run that it measures."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from bench.config.compose import given, parsed
from bench.config.explain import explained, no_setting
from bench.config.options import groups
from bench.config.schema import Config
from bench.errors import BenchError, nearest
from bench.ranges import Numbers
from bench.registry import REGULARIZERS
from bench.speed.peers import PEERS

# What a run's configuration starts from here; the command line wins.
DEFAULTS = {"budget": "paper", "model": "cnn", "data": "cifar10", "logger": "none"}
# The same where regularizers are compared: networks small enough for every one to be measured in minutes.
COMPARED = {"budget": "quick", "model": "cnn", "data": "mnist", "logger": "none"}
COMPARED_OWN: dict[str, Any] = {"batch_size": 64, "seconds": 1.0}

BASELINE = ("none",)
WAYS_OF = "spikingjelly_eager"
"""The peer whose ways of doing what a regularizer does are measured beside it."""


@dataclass(frozen=True)
class Settings:
    """What `bench speed` is asked for.

    Attributes:
        overrides: of the run's configuration.
        batch_size: images in a step.
        peers: arms beside ours.
        rounds: how often each arm is measured.
        seconds: how long one measurement takes, about, warm-up left out.
        steps: how many steps one measurement takes instead; None goes by `seconds`.
        methods: the sets of regularizers to compare, the baseline first; empty compares networks.
        every: whether all registered regularizers were asked for, so that one which the network cannot take is named
            and left out.
    """

    overrides: tuple[str, ...]
    batch_size: int = 50
    peers: tuple[str, ...] = tuple(PEERS)
    rounds: int = 7
    seconds: float = 3.0
    steps: int | None = None
    methods: tuple[tuple[str, ...], ...] = ()
    every: bool = False

    def of_method(self, method: Sequence[str]) -> list[str]:
        """The overrides of a run with a set of regularizers: those that set another one's numbers are left out."""
        kept = [line for line in self.overrides if (name := reg_of(line)) is None or name in method]
        return [*kept, f"trainer.batch_size={self.batch_size}", "trainer.epochs=1", f"reg=[{','.join(method)}]"]


def parse(arguments: Sequence[str]) -> Settings:
    """Sort what is ours from what is the run's.

    Raises:
        BenchError: a key, a peer or a number that there is not.
    """
    own: dict[str, Any] = {}
    overrides: dict[str, str] = {}
    names = own_names()
    known = names | {field.name for field in dataclasses.fields(Config)} | set(groups())
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign:
            raise BenchError(f"cannot read '{argument}': write key=value, as in model=sew")
        if key in names:
            value = ",".join(given([argument])[key])
            if key != "steps" or value != "null":
                own[key] = peers_of(value) if key == "peers" else number(key, value)
        elif key == "reg":
            own["methods"], own["every"] = methods_of(argument)
        elif key == "trainer.batch_size":
            raise BenchError(f"'{argument}': bench speed has a setting of its own for that, batch_size={value}")
        elif key.isidentifier() and key not in known:
            if difflib.get_close_matches(key, names, cutoff=0.8):
                raise BenchError(f"no setting is called '{key}'. {nearest(key, known)}")
            raise BenchError(no_setting(OmegaConf.structured(Config), key, value, known))
        else:
            overrides[key] = argument
    compared = "methods" in own
    if compared:
        own = {**COMPARED_OWN, **own, "peers": ways_of(own.get("peers", tuple(PEERS)))}
        strays = [line for line in overrides.values() if reg_of(line) not in {None, *itertools.chain(*own["methods"])}]
        if strays:
            raise BenchError(f"'{strays[0]}' sets a regularizer that is not compared; name {reg_of(strays[0])} in reg=")
    chosen = {key: f"{key}={value}" for key, value in (COMPARED if compared else DEFAULTS).items()} | overrides
    return Settings(tuple(chosen.values()), **own)


def own_names() -> set[str]:
    """The keys of `bench speed` that no run has."""
    return {field.name for field in dataclasses.fields(Settings)} - {"overrides", "methods", "every"}


def reg_of(line: str) -> str | None:
    """Whose number an override sets: `spikepen` of `reg.spikepen.weight=1`; None where it sets no regularizer's."""
    parts = line.partition("=")[0].split(".")
    return parts[1] if parts[0] == "reg" and len(parts) > 1 else None


def methods_of(argument: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """What `reg=` asks for, as a grid of runs reads it: `reg=spikepen,[spikepen,dropout]` are two sets of regularizers.

    Args:
        argument: `reg=...`; `all` stands for every registered one.

    Returns:
        The sets, the baseline first and each once, and whether `all` was among them.

    Raises:
        BenchError: a name that there is not, or one twice in a set.
    """
    with explained():
        (override,) = parsed([argument])
        values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    values = [plain(value) for value in values]
    known = REGULARIZERS.names()
    chosen: list[tuple[str, ...]] = [BASELINE]
    for value in values:
        if value == "all":
            chosen += [(name,) for name in known]
            continue
        names = tuple(value) if isinstance(value, list) else (value,)
        for place, name in enumerate(names):
            if name not in known:
                raise BenchError(f"no regularizer is called '{name}'. {nearest(name, ['all', *known])}")
            if name in names[:place]:
                raise BenchError(f"{argument} names '{name}' twice in one set")
        chosen.append(tuple(name for name in names if name != "none") or BASELINE)
    return tuple(dict.fromkeys(chosen)), "all" in values


def plain(value: Any) -> Any:
    """A name, or a list of names, without the quotes that Hydra takes off."""
    return [plain(each) for each in value] if isinstance(value, list) else str(getattr(value, "text", value))


def ways_of(peers: tuple[str, ...]) -> tuple[str, ...]:
    """The peers that regularizers are compared with.

    Raises:
        BenchError: one was named that has no way of its own here.
    """
    others = [name for name in peers if name != WAYS_OF]
    if others and peers != tuple(PEERS):
        raise BenchError(f"peers={others[0]}: regularizers are measured beside those of {WAYS_OF} alone, or of none")
    return (WAYS_OF,) if peers else ()


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
