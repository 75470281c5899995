"""The record's table: of every entry of `result.json` its key, type, meaning, unit and digits; the rest follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from bench import energy
from bench.errors import BenchError

SCHEMA_VERSION = 3
"""Of records that are written; those of earlier versions are read too (`bench.records.versions`)."""


class Unit(Enum):
    """What a number is, and so how people are shown it."""

    percent = "%"
    points = "points"
    share = "share"
    rate = "rate"
    count = "count"
    microjoule = "µJ"
    plain = ""


DIGITS = {
    Unit.percent: 2,
    Unit.points: 2,
    Unit.share: 1,
    Unit.rate: 4,
    Unit.count: 0,
    Unit.microjoule: 1,
    Unit.plain: 4,
}


class Role(StrEnum):
    """What an entry is for: `setting` must agree in runs that are compared, `measure` is averaged over seeds,
    `circumstance` may differ between two honest repetitions of a run."""

    setting = "setting"
    measure = "measure"
    circumstance = "circumstance"
    other = "other"


@dataclass(frozen=True)
class Field:
    """One entry.

    Attributes:
        key: its place in `result.json`, dotted.
        kind: its type; a tuple of texts are the choices.
        says: what it means, for the documentation of `results.csv`.
        null: whether it may be null: a number that was measured may not exist (spike rates and SynOps of the ReLU
            twin, every outcome of a run that diverged), one that was asked for always does.
        role: see `Role`.
        unit: of a measured number.
        title: heading in tables, on the page and in figures; none for what only files show.
        wandb: name in W&B's summary; that of a layer's number is followed by the layer's name.
        counted: whether the operations' counter gives it.
        derive: gives it from a record, which does not hold it.
        since: the version of the schema that it came with.
    """

    key: str
    kind: Any
    says: str = ""
    null: bool = False
    role: Role = Role.other
    unit: Unit = Unit.plain
    title: str = ""
    wandb: str = ""
    counted: bool = False
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    since: int = 1

    @property
    def column(self) -> str:
        """Its name as a column of statistics, `test_acc`."""
        return self.key.replace(".", "_")

    @property
    def digits(self) -> int:
        """After the point, as people are shown it."""
        return DIGITS[self.unit]

    @property
    def factor(self) -> int:
        """What a number is multiplied by for people: shares are shown in percent."""
        return 100 if self.unit is Unit.share else 1

    @property
    def heading(self) -> str:
        """The title with the unit, where the title alone leaves it open."""
        units = {Unit.share: "%", Unit.microjoule: "µJ"}
        return f"{self.title} ({units[self.unit]})" if self.unit in units else self.title

    def value(self, result: Mapping[str, Any]) -> Any:
        """What a record has for it; None where it has nothing."""
        if self.derive is not None:
            return self.derive(result)
        value: Any = result
        for part in self.key.split("."):
            value = None if value is None else value[part]
        return value

    def text(self, value: float | None, sign: bool = False) -> str:
        """A number as tables show it: percent with two digits, rates with four, counts in thousands."""
        if value is None:
            return "-"
        if self.unit is Unit.count:
            return f"{value / 1000:,.0f} k"
        # Rounded first and 0 added: what rounds to 0 from below has no sign.
        return f"{round(self.factor * value, self.digits) + 0.0:{'+' if sign else ''}.{self.digits}f}"

    def with_unit(self, value: float | None) -> str:
        """A number as the terminal shows it, behind its title or in a sentence."""
        if value is None:
            return "-"
        if self.unit is Unit.count:
            return f"{value:,.0f}"
        units = {Unit.percent: " %", Unit.points: " points", Unit.share: "%", Unit.microjoule: " uJ (compute, 45 nm)"}
        return self.text(value, sign=self.unit is Unit.points) + units.get(self.unit, "")


def share(layers: list[dict[str, Any]], key: str) -> float | None:
    """The share of all neurons that is `dead` or `saturated`, from those of the layers; None where it is not known."""
    known = [layer for layer in layers if layer[key] is not None]
    total = sum(layer["neurons"] for layer in known)
    return math.fsum(layer[key] * layer["neurons"] for layer in known) / total if total else None


def neuron_updates(result: Mapping[str, Any]) -> int | None:
    """How often neurons are updated for one image: neurons x time steps; None for the ReLU twin and where nothing was
    measured."""
    layers = result["layers"]
    if result["neuron"] == "relu" or not layers:
        return None
    return int(sum(layer["neurons"] for layer in layers) * result["time_steps"])


_setting, _measure, _circumstance = Role.setting, Role.measure, Role.circumstance

FIELDS: tuple[Field, ...] = (
    Field("schema_version", int),
    Field("run_id", str, "name of the run: data, network, regularizers, seed and a hash of everything that changes the "
          "numbers"),
    Field("status", ("finished", "diverged"), "finished or diverged; a diverged run has no outcome"),
    Field("status_reason", str, "why it diverged", null=True),
    Field("budget", str, "smoke, quick, cpu or paper; all but paper are reduced", role=_setting),
    Field("data", str, "data set", role=_setting),
    Field("data_copy", str, "which copy of it: the original or a folder of images", role=_setting),
    Field("data_checksum", str, "SHA-256 of its content", role=_setting),
    Field("train_images", int, "training images an epoch", role=_setting),
    Field("test_images", int, "test images", role=_setting),
    Field("classes", int, "number of classes"),
    Field("model", str, "network", role=_setting),
    Field("model_args", dict, "its arguments, as JSON", role=_setting),
    Field("neuron", str, "kind of neuron; relu is the non-spiking twin", role=_setting),
    Field("time_steps", int, "simulated time steps T", role=_setting),
    Field("reg", str, "regularizers, joined by +"),
    Field("strength", float, "the number that scales the regularization; empty where there is none or more than one",
          null=True),
    Field("regs", dict, "regularizers with their arguments, as JSON"),
    Field("no_effect", list, "those of them that changed nothing in this run; empty where it is not known", True,
          since=2),
    Field("optimizer", str, "sgd or adamw", role=_setting),
    Field("lr", float, "initial learning rate", role=_setting),
    Field("weight_decay", float, "largest weight decay of any parameter group"),
    Field("epochs", int, "of training", role=_setting),
    Field("batch_size", int, "images a step", role=_setting),
    Field("seed", int, "of everything random"),
    Field("precision", str, "fp32 or bf16", role=_setting),
    Field("ops", str, "kernels used"),
    Field("numerics", int, "raised whenever a change of the suite moves results; empty in records from before it was "
          "counted", True, _circumstance, since=2),
    Field("train.acc", float, "running training accuracy of the last epoch, augmented, in percent", True, _measure,
          Unit.percent, "train accuracy"),
    Field("train.loss", float, "running training loss of the last epoch, penalties included", True),
    Field("train.acc_eval", float, "training accuracy in evaluation mode, without augmentation, in percent", True,
          _measure, Unit.percent, "train accuracy, clean", "final/train_acc_eval"),
    Field("train.loss_eval", float, "its loss", True),
    Field("train.spike_rate", float, "spikes / (neurons x time steps x images) over the last training epoch", True,
          _measure, Unit.rate, "spike rate, train"),
    Field("val.acc", float, "validation accuracy in percent; empty without a validation split", True,
          unit=Unit.percent, title="validation accuracy"),
    Field("val.loss", float, "validation loss", True),
    Field("val.spike_rate", float, "validation spike rate", True, unit=Unit.rate),
    Field("val.spike_rate_layer_mean", float, "mean of the layers' validation spike rates", True, unit=Unit.rate),
    Field("test.acc", float, "test accuracy after the last epoch, in percent: the result", True, _measure,
          Unit.percent, "test accuracy", "final/test_acc"),
    Field("test.loss", float, "test loss", True, _measure),
    Field("test.spike_rate", float, "test spike rate over all spiking neurons", True, _measure, Unit.rate,
          "spike rate, test", "final/spike_rate"),
    Field("test.spike_rate_layer_mean", float, "mean of the layers' test spike rates", True, _measure, Unit.rate,
          "mean of layers' rates", "final/spike_rate_layer_mean"),
    Field("test_best_epoch.acc", float, "best test accuracy of any epoch, in percent: for diagnosis, never the result",
          True, unit=Unit.percent),
    Field("test_best_epoch.epoch", int, "that epoch, from 0", True),
    Field("gap", float, "train.acc_eval - test.acc, in points", True, _measure, Unit.points, "gap", "gap"),
    Field("layers.name", str),
    Field("layers.neurons", int),
    Field("layers.spike_rate", float, null=True, unit=Unit.rate, wandb="final/spike_rate_layer"),
    Field("layers.dead", float, null=True, unit=Unit.share, wandb="final/dead"),
    Field("layers.saturated", float, null=True, unit=Unit.share),
    Field("synops_per_image", float, "nonzero inputs x fan-out of one image", True, _measure, Unit.count,
          "SynOps / image", counted=True),
    Field("synops_nonbinary_per_image", float, "those of them whose input is a sum or a mean of spikes, and so a "
          "multiplication; empty where it is not known", True, unit=Unit.count, title="of them non-binary",
          counted=True, since=2),
    Field("macs_per_image", float, "multiply-accumulates of one image: layers whose input is no spike", True,
          unit=Unit.count, counted=True),
    Field("energy_uj", float, f"microjoules an image, {energy.RULE}", True, _measure, Unit.microjoule,
          "energy / image", counted=True),
    Field("dead", float, "share of all neurons that never spiked on the test set, in [0, 1]", True, _measure,
          Unit.share, "dead", "dead", derive=lambda result: share(result["layers"], "dead")),
    Field("saturated", float, "share of all neurons that spiked at every step of the test set, in [0, 1]", True,
          _measure, Unit.share, "saturated", "saturated", derive=lambda result: share(result["layers"], "saturated")),
    Field("neuron_updates_per_image", int, "neurons x time steps, which the energy leaves out", True, unit=Unit.count,
          derive=neuron_updates),
    Field("params", int, "trained parameters", wandb="params"),
    Field("passes_per_step", float, "forward passes that a training step made, in the mean; empty where they were not "
          "counted", True, since=3),
    Field("train_images_per_s", float, "training speed", True, _circumstance),
    Field("seconds.total", float, "wall-clock seconds", role=_circumstance, wandb="seconds"),
    Field("seconds.train", float, "of them training", role=_circumstance),
    Field("seconds.eval", float, "of them evaluating", role=_circumstance),
    Field("peak_memory_bytes", int, "on the GPU, or resident on the CPU", role=_circumstance),
    Field("hardware", str, "GPU or processor", role=_circumstance),
    Field("versions", dict, "of the packages that matter, as JSON", role=_circumstance),
    Field("commit", str, "of this suite", True, _circumstance),
    Field("started", str, "UTC", role=_circumstance),
    Field("finished", str, "UTC", role=_circumstance),
)  # fmt: skip
"""All entries, in the order in which `result.json` has them."""

LISTS = ("layers",)
"""Groups of which a record has a list."""

OPTIONAL = ("val",)
"""Groups that are null where nothing was asked for."""

FIELD: dict[str, Field] = {field.key: field for field in FIELDS}

MEASURES: dict[str, Field] = {field.column: field for field in FIELDS if field.role is Role.measure}
"""What reports average over seeds, by column."""

COUNTED: tuple[Field, ...] = tuple(field for field in FIELDS if field.counted)
"""What an evaluation's operations come to."""


def keys(role: Role) -> tuple[str, ...]:
    """The outermost keys of a role's entries."""
    return tuple(dict.fromkeys(field.key.partition(".")[0] for field in FIELDS if field.role is role))


def _nested() -> dict[str, Any]:
    """The entries as `result.json` nests them."""
    tree: dict[str, Any] = {}
    for field in FIELDS:
        if field.derive is None:
            group, dot, name = field.key.rpartition(".")
            (tree.setdefault(group, {}) if dot else tree)[name] = field
    return tree


SCHEMA: dict[str, Any] = _nested()
"""Keys of `result.json` in order, each with its `Field`, or with the entries of its group."""


def validate(result: Any) -> None:
    """Check a record against the table as its version had it: the same keys, each of its type.

    Raises:
        BenchError: names the first key that does not fit.
    """
    if not isinstance(result, dict):
        raise BenchError("the record is no object")
    version = result.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA_VERSION:
        raise BenchError(f"schema_version is {version}, this suite reads 1 to {SCHEMA_VERSION}")
    _check_group(result, SCHEMA, "", version)


def _check_group(value: Any, entries: Mapping[str, Any], where: str, version: int) -> None:
    if not isinstance(value, dict):
        raise BenchError(f"{where.rstrip('.')} is no object")
    entries = {k: entry for k, entry in entries.items() if not isinstance(entry, Field) or entry.since <= version}
    for key in [*entries, *value]:
        if key not in value or key not in entries:
            raise BenchError(f"key '{where}{key}' is {'missing' if key not in value else 'not in the schema'}")
    for key, entry in entries.items():
        place, item = f"{where}{key}", value[key]
        if isinstance(entry, Field):
            _check_field(item, entry, place)
        elif key in LISTS:
            if not isinstance(item, list):
                raise BenchError(f"key '{place}' is no list")
            for i, one in enumerate(item):
                _check_group(one, entry, f"{place}[{i}].", version)
        elif not (item is None and key in OPTIONAL):
            _check_group(item, entry, f"{place}.", version)


def _check_field(value: Any, field: Field, where: str) -> None:
    if value is None and field.null:
        return
    if isinstance(field.kind, tuple):
        if value not in field.kind:
            raise BenchError(f"key '{where}' is {value!r}, not one of {', '.join(field.kind)}")
        return
    fits = isinstance(value, int | float) if field.kind is float else isinstance(value, field.kind)
    if not fits or isinstance(value, bool):
        raise BenchError(f"key '{where}' is {value!r}, not a {field.kind.__name__}")
