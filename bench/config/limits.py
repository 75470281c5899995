"""The ranges of a run's settings, and which of them go together."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError
from bench.ranges import Numbers, is_finite

COUNTS = (
    "time_steps",
    "trainer.epochs",
    "trainer.batch_size",
    "trainer.devices",
    "trainer.eval_every",
    "trainer.max_train_images",
    "trainer.limit_train_batches",
    "trainer.limit_test_batches",
)


def check_limits(cfg: DictConfig) -> None:
    """Refuse numbers that no part of the suite could use.

    Raises:
        BenchError: names the key and the values it takes.
    """
    Numbers().at_least(1, **{key: OmegaConf.select(cfg, key) for key in COUNTS})
    Numbers().above(0, **{key: OmegaConf.select(cfg, key) for key in ("optim.lr", "optim.clip")})
    count, batch = cfg.trainer.devices, cfg.trainer.batch_size
    if batch % count:
        nearest = " or ".join(str(size) for size in (batch // count * count, (batch // count + 1) * count) if size)
        raise BenchError(f"trainer.batch_size={batch} is not to be shared equally by {count} devices; {nearest} is")
    if cfg.trainer.sync_batchnorm and count == 1:
        raise BenchError("trainer.sync_batchnorm is for several devices: set trainer.devices, or leave it out")
    Numbers("optim.").within("[0, 1)", momentum=cfg.optim.momentum)
    betas = list(cfg.optim.betas)
    in_range = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    Numbers("optim.").check("betas", betas, in_range, "be two numbers in [0, 1)")
    for key, value in cfg.neuron.items():
        # What the chosen neuron uses has ranges of its own; what it passes over is no less a setting.
        if isinstance(value, float) and not is_finite(value):
            Numbers("neuron.").check(key, value, False, "be finite")
