"""`bench eval`: probes of finished runs, from checkpoint to `probes/<name>.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from bench.config.component import build, schema, settings
from bench.config.compose import given, read_config
from bench.config.explain import explained
from bench.config.schema import Accelerator
from bench.declarations import LiveDeclaration
from bench.errors import BenchError, EnvironmentFault, nearest
from bench.files import read_json, write_atomic
from bench.ops import Backend
from bench.records import probe as probe_file
from bench.records import provenance
from bench.records.folder import RunFolder
from bench.records.identity import arguments_of, plugins_of
from bench.registry import PROBES

if TYPE_CHECKING:
    from bench.probes.base import Outcome, Say, Subject


MOVED = ("data.root", "data.path")
"""Settings of a run that say where its data lie, by the names that `bench run` has for them."""


@dataclass
class EvalConfig:
    """The settings of `bench eval`; each probe's own stand under its name.

    Attributes:
        probe: names of probes.
        force: measure again what is there.
        seed: of the probes; the same for all runs, whatever theirs.
        bake: fold what regularizers did into plain weights first, as for export.
        root: where the data sets lie, also written data.root; null is where the run had them.
        path: the folder of images of data=folder, also written data.path; likewise.
        accelerator: where to compute.
        ops: which kernels.
    """

    probe: list[str] = field(default_factory=list)
    force: bool = False
    seed: int = 0
    bake: bool = True
    root: str | None = None
    path: str | None = None
    accelerator: Accelerator = Accelerator.auto
    ops: Backend = Backend.auto


def parse(lines: Sequence[str]) -> DictConfig:
    """The settings of a command line: `probe=noise,adversarial noise.images=100`.

    Raises:
        BenchError: an unknown probe or setting, or a value of the wrong type.
    """
    known = {name: schema(PROBES, name) for name in PROBES.names()}
    cfg = OmegaConf.create(
        {"eval": OmegaConf.structured(EvalConfig), **{n: OmegaConf.structured(s) for n, s in known.items()}}
    )
    with explained():
        for line in lines:
            key = line.partition("=")[0]
            if key == "probe":
                names = [name.strip() for text in given([line])[key] for name in text.strip("[]").split(",")]
                names = [name for name in names if name]
                for name in names:
                    PROBES.get(name)
                cfg.eval.probe = list(dict.fromkeys(names))
                continue
            place = place_of(key, cfg)
            (override,) = OverridesParser.create().parse_overrides([line])
            if override.is_sweep_override():
                raise BenchError(f"{line}: a list is written [a,b]")
            OmegaConf.update(cfg, place, override.value())
    if not cfg.eval.probe:
        raise BenchError(f"probe what? Say probe=NAME; there are: {', '.join(known)}")
    for line in lines:
        name = line.partition(".")[0]
        if name in known and name not in cfg.eval.probe:
            raise BenchError(f"{line} sets a probe that is not among probe={','.join(cfg.eval.probe)}")
    return cfg


def place_of(key: str, cfg: DictConfig) -> str:
    """Where a setting lies in the configuration.

    Raises:
        BenchError: there is no such setting; names the nearest.
    """
    probe, dot, name = key.partition(".")
    fields = {str(part): [str(setting) for setting in cfg[part] if setting != "_target_"] for part in cfg}
    own = fields.pop("eval")
    if not dot and key in own:
        return f"eval.{key}"
    if key in MOVED:
        return f"eval.{name}"
    if probe in fields:
        if dot and name in fields[probe]:
            return key
        there = nearest(name, fields[probe]) if fields[probe] else "It has none."
        raise BenchError(f"{probe} has no setting '{name}'. {there}")
    raise BenchError(f"bench eval has no setting '{key}'. {nearest(key, [*own, *(f'{n}.' for n in fields)])}")


def finished(path: Path) -> dict[str, Any]:
    """The record of a run that can be probed.

    Raises:
        BenchError: it is not finished, diverged, or has no checkpoint.
    """
    folder = RunFolder(path.parent, path.name)
    record = folder.finished()
    if record is None:
        raise BenchError(f"{path.name} is not finished: there is no result.json; the same `bench run` goes on with it")
    if record["status"] != "finished":
        raise BenchError(f"{path.name} diverged: there is no trained network to probe")
    if not folder.checkpoint_path.exists():
        raise BenchError(
            f"{path.name} has no checkpoints/last.ckpt: records carry none; name the run's own folder, or run it again"
        )
    return record


def probeable(path: Path) -> bool:
    """Whether a run has an outcome and a checkpoint; a damaged record is an error all the same."""
    folder = RunFolder(path.parent, path.name)
    record = folder.finished()
    return record is not None and record["status"] == "finished" and folder.checkpoint_path.exists()


def evaluate(paths: Sequence[Path], cfg: DictConfig, say: Say) -> Iterator[tuple[Path, str, dict[str, Any], bool]]:
    """Probe some runs; all are looked at before the first is probed.

    Args:
        paths: run folders.
        cfg: of `parse`.
        say: takes a line of progress.

    Yields:
        Run folder, name of the probe, content of its file, whether it was there already.

    Raises:
        BenchError: a run cannot be probed, or a probe's settings do not fit.
    """
    probes = {name: build(PROBES, cfg[name]) for name in cfg.eval.probe}
    asked = {name: stored(cfg[name]) for name in probes}
    records = {path: finished(path) for path in paths}
    waiting: dict[Path, list[str]] = {}
    for path, record in records.items():
        waiting[path] = [n for n in probes if cfg.eval.force or current(path, n, record, cfg, asked[n]) is None]
    for path, record in records.items():
        subject = None
        for name, probe in probes.items():
            if name not in waiting[path]:
                kept = current(path, name, record, cfg, asked[name])
                assert kept is not None
                yield path, name, kept, True
                continue
            if subject is None:
                subject = load(path, record, cfg)
            content = compile_probe(name, asked[name], record, cfg, subject, probe.measure(named(subject, name), say))
            write(path, name, content)
            yield path, name, content, False


def named(subject: Subject, name: str) -> Subject:
    """The subject as a probe of this name is given it."""
    return replace(subject, probe=name, other=lambda folder: replace(subject.other(folder), probe=name))


def stored(node: DictConfig) -> dict[str, Any]:
    """A probe's settings as its file has them."""
    plain: Any = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    return arguments_of(plain)


def defaults(name: str) -> dict[str, Any]:
    """A probe's settings where nobody sets any, as its file has them."""
    return stored(OmegaConf.structured(schema(PROBES, name)))


def current(
    path: Path, name: str, record: dict[str, Any], cfg: DictConfig, asked: dict[str, Any]
) -> dict[str, Any] | None:
    """What a probe measured earlier; None where it is to be measured (again).

    Raises:
        BenchError: it was measured with other settings, or its file is damaged.
    """
    file = path / "probes" / f"{name}.json"
    if not file.exists():
        return None
    try:
        content = probe_file.read(file, record)
    except probe_file.Outdated:
        return None
    except BenchError as error:
        raise BenchError(f"{error}; force=true measures it again") from error
    if content is None:
        return None
    # What a file lacks came later, and by its default leaves what there was as it is: else the version were another.
    here = {**defaults(name), **content["settings"], "seed": content["seed"], "bake": content["baked"]}
    wanted = {**asked, "seed": cfg.eval.seed, "bake": cfg.eval.bake}
    other = [f"{key}={json.dumps(here.get(key))}" for key in wanted if here.get(key) != wanted[key]]
    if other or here.keys() != wanted.keys():
        raise BenchError(f"{file} was measured with {', '.join(other) or 'other settings'}; force=true replaces it")
    return content


def load(path: Path, record: dict[str, Any], cfg: DictConfig) -> Subject:
    """The trained network of a run, in evaluation mode.

    Raises:
        BenchError: its files are damaged, or its data or its plugins are not those it was trained with.
    """
    from bench.data import prepare
    from bench.probes.base import Subject
    from bench.regularizers.base import bake
    from bench.training import setup

    own = read_config(path / "config.yaml")
    check_plugins(path, own)
    place(path, own, cfg)
    device = setup.pick_device(cfg.eval.accelerator.value)
    setup.pick_kernels(cfg.eval.ops, device)
    batch_size = setup.eval_batch_size(own.trainer.batch_size)
    splits = prepare(
        settings(own.data),
        seed=own.seed,
        batch_size=own.trainer.batch_size,
        eval_batch_size=batch_size,
        max_train_images=own.trainer.max_train_images,
    )
    if splits.dataset.checksum != record["data_checksum"]:
        where = "root=DIR" if own.data.path is None else "path=FOLDER"
        raise BenchError(f"{path.name} was trained on another copy of {record['data']}; {where} names where it lies")
    task = setup.make_task(own, splits)
    checkpoint = setup.find_checkpoint(RunFolder(path.parent, path.name), task)
    assert checkpoint is not None
    task.load_state_dict(checkpoint["state_dict"])
    if cfg.eval.bake:
        bake(task.model, task.regs)
    task.to(device).eval().requires_grad_(False)
    return Subject(
        task, splits, settings(own.data), record["precision"], batch_size, device, cfg.eval.seed, path,
        other=lambda folder: load(folder, finished(folder), cfg),
    )  # fmt: skip


def check_plugins(path: Path, own: DictConfig) -> None:
    """Refuse a run whose network another version of a plugin would rebuild.

    Args:
        path: of the run's folder.
        own: its configuration.

    Raises:
        BenchError: names the plugin and both versions' hashes; or `env.json` is damaged.
    """
    file = path / "env.json"
    trained = provenance.plugin_hashes(read_json(file)) if file.exists() else {}
    for _, plugin in plugins_of(own):
        sha256 = trained.get(plugin.name, plugin.sha256)
        if sha256 != plugin.sha256:
            raise BenchError(
                f"{path.name} was trained by plugin '{plugin.name}' ({provenance.plugin_file(plugin)}) as it was at "
                f"{str(sha256)[:8]}, and now it is at {str(plugin.sha256)[:8]}: bring that code back, or train anew"
            )


def place(path: Path, own: DictConfig, cfg: DictConfig) -> None:
    """Say where a run's data lie now.

    Args:
        path: of the run's folder.
        own: its configuration; changed.
        cfg: of `parse`.

    Raises:
        BenchError: its folder of images is not there.
    """
    for key in ("root", "path"):
        if cfg.eval[key] is not None:
            own.data[key] = cfg.eval[key]
    if own.data.path is not None and not Path(own.data.path).expanduser().is_dir():
        raise BenchError(
            f"{path.name}: data.path={own.data.path} is no folder here; path=FOLDER names where its images lie"
        )


def compile_probe(
    name: str, asked: dict[str, Any], record: dict[str, Any], cfg: DictConfig, subject: Subject, outcome: Outcome
) -> dict[str, Any]:
    """The content of `probes/<name>.json`."""
    foreign = [plugin for _, plugin in plugins_of(read_config(subject.path / "config.yaml"))]
    own = PROBES.declaration(name)
    commit, dirty, _ = provenance.commit([*foreign, own] if isinstance(own, LiveDeclaration) else foreign)
    return {
        "schema_version": probe_file.SCHEMA_VERSION,
        "probe": name,
        "version": probe_file.version(name),
        "run_id": record["run_id"],
        "run_finished": record["finished"],
        "settings": asked,
        "seed": cfg.eval.seed,
        "baked": cfg.eval.bake,
        "images": outcome.images,
        "data": record["data"],
        "data_copy": subject.splits.dataset.copy,
        "data_checksum": subject.splits.dataset.checksum,
        "classes": list(subject.splits.dataset.classes),
        "precision": subject.precision,
        "hardware": provenance.hardware(subject.device),
        "versions": provenance.versions(),
        "commit": commit,
        "dirty": dirty,
        "measured": provenance.now(),
        "headline": outcome.headline,
        "rows": outcome.rows,
        "notes": outcome.notes,
        **outcome.more,
        **doubted(outcome.doubts),
    }


def doubted(reasons: list[str] | None) -> dict[str, Any]:
    """What a probe's file says of whether its numbers are to be believed; nothing where that was not looked into."""
    return {} if reasons is None else {probe_file.UNRELIABLE: bool(reasons), probe_file.REASONS: reasons}


def write(path: Path, name: str, content: dict[str, Any]) -> None:
    """Put a probe's file into the run's folder, whole or not at all.

    Raises:
        EnvironmentFault: another process is at work on the run, or its folder cannot be written.
    """
    with RunFolder(path.parent, path.name).locked():
        try:
            (path / "probes").mkdir(exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{path / 'probes'} could not be made: {error.strerror}") from error
        write_atomic(path / "probes" / f"{name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")


def shown(value: Any) -> str:
    """A cell of a probe's table: `14,203`, `0.0312`, `-` for what was not measured."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"
