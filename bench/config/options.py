"""What a command line can name: the files under configs/ and what is registered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra.core.config_store import ConfigStore

from bench.config.component import schema
from bench.config.schema import Config
from bench.data import DATASETS, DataConfig
from bench.registry import MODELS, REGULARIZERS


def config_dir() -> Path:
    """The folder of the YAML files: `bench/_configs` in a wheel, `configs/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_configs"
    return inside if inside.is_dir() else package.parent / "configs"


_own: ContextVar[Path | None] = ContextVar("own", default=None)


@contextmanager
def beside(folder: Path | None) -> Iterator[None]:
    """While this context is open, options are also looked for in a folder of the user's, that of `--config-dir`."""
    before = _own.set(folder)
    try:
        yield
    finally:
        _own.reset(before)


def config_file(group: str, name: str) -> Path:
    """The YAML file of an option; of two, Hydra takes the suite's."""
    paths = [folder / group / f"{name}.yaml" for folder in config_dirs()]
    return next((path for path in paths if path.is_file()), paths[0])


def config_dirs() -> list[Path]:
    """The folders of YAML files: the suite's, then the user's, if there is one."""
    own = _own.get()
    return [config_dir()] if own is None else [config_dir(), own]


def register_configs() -> None:
    """Put the schema and an option for everything registered into Hydra's ConfigStore; again does no harm."""
    store = ConfigStore.instance().store
    store(name="base_config", node=Config)
    store(group="data", name="base_data", node=DataConfig)
    for name in DATASETS.names():
        # A data set of a plugin has no file under configs/.
        if not (config_dir() / "data" / f"{name}.yaml").exists():
            store(group="data", name=name, node=DataConfig(name=name))
    for name in MODELS.names():
        store(group="model", name=name, node=schema(MODELS, name))
    for name in REGULARIZERS.names():
        store(group="reg", name=name, package=f"reg.{name}", node=schema(REGULARIZERS, name))


def groups() -> list[str]:
    """What is set by the name of an option: `model`, `reg`, `data`, ..."""
    return sorted({"model", "reg", *(path.name for path in config_dir().iterdir() if path.is_dir())})


def options(group: str) -> list[str]:
    """What a group can be set to."""
    folders = [folder / group for folder in config_dirs()]
    names = {path.relative_to(f).with_suffix("").as_posix() for f in folders for path in f.rglob("*.yaml")}
    stored = ConfigStore.instance().repo.get(group, {})
    names |= {name.removesuffix(".yaml") for name in stored}
    return sorted(name for name in names if not name.startswith("base_"))
