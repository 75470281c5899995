"""The ranges of a run's settings, and which of them go together."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from bench.errors import BenchError


def check_limits(cfg: DictConfig) -> None:
    """Refuse numbers that no part of the suite could use.

    Raises:
        BenchError: names the key and the smallest value it takes.
    """
    least = {
        "time_steps": 1,
        "trainer.epochs": 1,
        "trainer.batch_size": 1,
        "trainer.devices": 1,
        "trainer.eval_every": 1,
        "trainer.max_train_images": 1,
        "trainer.limit_train_batches": 1,
        "trainer.limit_test_batches": 1,
    }
    for key, smallest in least.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value < smallest:
            raise BenchError(f"{key} is {value}, it must be at least {smallest}")
    for key in ("optim.lr", "optim.clip"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not value > 0:
            raise BenchError(f"{key} is {value:g}, it must be above 0")
    count, batch = cfg.trainer.devices, cfg.trainer.batch_size
    if batch % count:
        nearest = " or ".join(str(size) for size in (batch // count * count, (batch // count + 1) * count) if size)
        raise BenchError(f"trainer.batch_size={batch} is not to be shared equally by {count} devices; {nearest} is")
    if cfg.trainer.sync_batchnorm and count == 1:
        raise BenchError("trainer.sync_batchnorm is for several devices: set trainer.devices, or leave it out")
    if not 0 <= cfg.optim.momentum < 1:
        raise BenchError(f"optim.momentum is {cfg.optim.momentum:g}, it must lie in [0, 1)")
