"""What identifies a run: everything that changes its numbers, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.config.component import component_name, settings
from bench.data import DATASETS, identity
from bench.declarations import LiveDeclaration
from bench.registry import MODELS, REGULARIZERS

# Settings under `trainer` that say where to compute, not what. Precision counts as what `auto` stands for.
UNCOUNTED = ("accelerator", "precision", "devices", "sync_batchnorm", "cuda_graph")

ASIDE = {
    "logger", "runs", "force", "hydra", "logger.mode", "logger.project", "logger.entity", "data.root", "data.path",
    "ops",    *(f"trainer.{key}" for key in UNCOUNTED if key != "precision"),
}  # fmt: skip
"""Settings that change no number of a run."""


def setting_of(override: str) -> str:
    """What an override sets; of a group in another, as `hydra/launcher`, the outer one."""
    return override.lstrip("+~").split("=", 1)[0].split("/")[0]


def science(cfg: DictConfig, data_identity: tuple[str, str] | None = None, auto: str | None = None) -> dict[str, Any]:
    """Everything that changes the numbers of a run, as plain values; its hash is the run's identity.

    Left out: paths, logger, kernels, devices. Added: the checksum of the data, the precision that `auto` stands for
    here, and the hashes of the files of the plugins that take part; None where none does.

    Args:
        cfg: of one run.
        data_identity: (checksum, copy) of the data, for those who ask without having it; else it is looked up.
        auto: what `trainer.precision=auto` stands for, for those who ask about another machine's runs.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    checksum, copy = data_identity or identity(settings(cfg.data))
    data = {key: value for key, value in plain["data"].items() if key not in ("root", "path")}
    trainer = {k: v for k, v in plain["trainer"].items() if k not in UNCOUNTED}
    hashes: dict[str, dict[str, str | None]] = {}
    for kind, declaration in plugins_of(cfg):
        hashes.setdefault(kind, {})[declaration.name] = declaration.sha256
    return {
        "budget": plain["budget"],
        "data": {**data, "checksum": checksum, "copy": copy},
        "model": {"name": component_name(MODELS, cfg.model), **arguments_of(plain["model"])},
        "neuron": plain["neuron"],
        "time_steps": plain["time_steps"],
        "reg": {name: arguments_of(node) for name, node in plain["reg"].items()},
        "optim": plain["optim"],
        "trainer": trainer,
        "precision": precision_of(plain["trainer"], auto),
        "seed": plain["seed"],
        "init_seed": plain["init_seed"],
        "plugins": hashes or None,
    }


def plugins_of(cfg: DictConfig) -> list[tuple[str, LiveDeclaration]]:
    """What of a run is a plugin's: (`model`, `reg` or `data`; what is registered) each.

    Args:
        cfg: of one run.
    """
    parts = [("model", MODELS.declaration(component_name(MODELS, cfg.model)))]
    parts += [("reg", REGULARIZERS.declaration(component_name(REGULARIZERS, node))) for node in cfg.reg.values()]
    parts.append(("data", DATASETS.declaration(cfg.data.name)))
    return [(kind, declaration) for kind, declaration in parts if isinstance(declaration, LiveDeclaration)]


def precision_of(trainer: Mapping[str, Any], auto: str | None = None) -> str:
    """The precision of a run: what it asks for, or what `auto` stands for.

    Args:
        trainer: its settings.
        auto: see `science`; None is what `best_precision` finds here.
    """
    asked = str(trainer["precision"])
    return auto or best_precision(trainer["accelerator"]) if asked == "auto" else asked


@cache
def best_precision(accelerator: str) -> str:
    """bf16 where the processor that will train has instructions for it (AVX512_BF16, Ampere and later), else fp32.

    Args:
        accelerator: auto, cpu or gpu.
    """
    # torch takes seconds to import: it is asked only where there is an NVIDIA driver.
    if accelerator != "cpu" and Path("/dev/nvidiactl").exists():
        import torch

        if torch.cuda.is_available():
            return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    info = Path("/proc/cpuinfo")
    return "bf16" if info.exists() and "avx512_bf16" in info.read_text() else "fp32"


LATER = ("pool", "interval")
"""Settings that came when runs without them had been submitted."""


def arguments_of(node: dict[str, Any]) -> dict[str, Any]:
    """A component's settings without the path of its class: moving a file must change no identity.

    Later settings are left out while null, so that a run's record and weights say what those from before them do.
    """
    kept = {key: value for key, value in node.items() if key != "_target_"}
    return {key: value for key, value in kept.items() if value is not None or key not in LATER}


def run_id(science: dict[str, Any]) -> str:
    """`<data>-<model>-<regs>-s<seed>-<hash8>`; the hash is over everything that changes the numbers.

    Settings at null are left out, so that a setting added later, null unless asked for, changes no earlier run's name.

    Args:
        science: what `bench.records.identity.science` returns.
    """
    digest = hashlib.sha256(json.dumps(_set(science), sort_keys=True).encode()).hexdigest()[:8]
    regs = "+".join(science["reg"])
    return f"{science['data']['name']}-{science['model']['name']}-{regs}-s{science['seed']}-{digest}"


def _set(value: Any) -> Any:
    """The same without the keys whose value is None."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    return value
