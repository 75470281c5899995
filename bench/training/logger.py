"""The curves of a run, at Weights & Biases, in trackio or in files: beside the record, never at the cost of the run."""

from __future__ import annotations

import io
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from tempfile import gettempdir
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bench.config.schema import LoggerConfig, LoggerName
from bench.console import say
from bench.errors import BenchError, EnvironmentFault, nearest, one_line
from bench.records.folder import RunFolder

ANSWER_SECONDS = 2.0
INIT_SECONDS = 30.0

EXPERIMENT = "BENCH_EXPERIMENT"
"""The variable with the experiments that a run is run for, which a grid sets: a run itself knows none."""

JOB_TYPES = ("train", "tune", "tune-final", "probe")
"""What a run can be made for."""

# What wandb takes for $WANDB_MODE.
WANDB_MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")

# Variables by which trackio would send a run elsewhere.
TRACKIO_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


def server() -> str:
    """The address of the W&B server: $WANDB_BASE_URL, else wandb's own default."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url
    import wandb

    return str(wandb.Settings().base_url)


def has_key(url: str) -> bool:
    """Whether a key for the server is at hand: $WANDB_API_KEY, or an entry of $NETRC or ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        entry = netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).netloc)
    except (OSError, NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


def answers(url: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the server answers anything at all within `seconds`, name look-up included."""
    # Imported here: a finished run is skipped in less time than this takes.
    import urllib.error
    import urllib.request

    heard = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass
        except OSError:
            return
        heard.set()

    # A thread of its own: no timeout of urllib's covers the name look-up.
    threading.Thread(target=ask, daemon=True).start()
    return heard.wait(seconds)


def reachable() -> str:
    """The server's address, for commands that are useless without it.

    Raises:
        BenchError: its address is none, or there is no key for it.
        EnvironmentFault: it does not answer.
    """
    check_environment()
    url = server()
    if not has_key(url):
        raise BenchError(
            f"no W&B key for {url}: `wandb login` says where to get yours and keeps it, or set WANDB_API_KEY"
        )
    if not answers(url):
        raise EnvironmentFault(f"{url} did not answer within {ANSWER_SECONDS:g} s")
    return url


def choose_mode(config: LoggerConfig) -> tuple[str, str | None]:
    """The mode for wandb.init, and a reason when it is not the one that was asked for.

    The setting wins, then $WANDB_MODE; else online when a key exists and the server answers, else offline.
    """
    asked = config.mode.value
    if asked == "auto":
        asked = os.environ.get("WANDB_MODE", "auto")
        asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)
    if asked in ("offline", "disabled"):
        return asked, None
    url = server()
    # Without a key wandb would prompt, or crash where there is no terminal.
    if not has_key(url):
        return "offline", "no API key" if asked == "online" else None
    if not answers(url):
        return "offline", f"{url} did not answer within {ANSWER_SECONDS:g} s"
    return "online", None


def tags_of(settings: dict[str, Any]) -> list[str]:
    """What a run is found by among others: its data, network and budget, and the experiments that it is run for.

    Args:
        settings: of `bench.training.result.logged_config`.
    """
    own = [str(settings[key]) for key in ("data", "model", "budget") if settings.get(key)]
    return list(dict.fromkeys([*own, *filter(None, os.environ.get(EXPERIMENT, "").split(","))]))


def job_type(config: LoggerConfig) -> str:
    """What a run is made for, which is no part of what it is.

    Raises:
        BenchError: it is none of `JOB_TYPES`.
    """
    asked = config.job_type
    if asked not in JOB_TYPES:
        raise BenchError(f"logger.job_type is '{asked}', which is no choice. {nearest(asked, JOB_TYPES)}")
    return asked


def flatten(row: dict[str, Any]) -> dict[str, float]:
    """One line of `metrics.jsonl` as keys of a curve: `test/acc`, `spike_rate/test`, `spike_rate_layer/<name>`; the
    epoch is counted from 1, as in the terminal."""
    flat: dict[str, Any] = {"epoch": row["epoch"] + 1, "lr": row["lr"], "images_per_s": row["images_per_s"]}
    for split in ("train", "val", "test"):
        for key, value in (row.get(split) or {}).items():
            flat[f"{key}/{split}" if key.startswith("spike_rate") else f"{split}/{key}"] = value
    flat.update({f"penalty/{name}": value for name, value in row["penalties"].items()})
    flat.update({f"spike_rate_layer/{name}": rate for name, rate in row["layers"].items()})
    return {key: value for key, value in flat.items() if value is not None}


class Sink(ABC):
    """What takes the rows of one run; whatever it raises ends the logging, not the run.

    Args:
        config: project, entity, mode.
        folder: the run's folder.
        settings: the config to show.
        run_id: of a W&B run.
        group: the runs of one setting share it.

    Attributes:
        name: for people.
        requirement: what to install where its package is missing.
        mode: how it takes them, for people.
        replays: whether it begins empty, so that the epochs from before an interruption are sent again.
    """

    name: str
    requirement: str
    mode: str
    replays: bool

    @abstractmethod
    def __init__(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, group: str
    ) -> None: ...

    @abstractmethod
    def log(self, row: dict[str, float], step: int) -> None:
        """Take one step's numbers."""

    @abstractmethod
    def finish(self, whole: bool) -> None:
        """Close the run; `whole` is False where it was cut off."""


class WandbRun(Sink):
    """One run at W&B, behind Lightning's WandbLogger; offline where online fails."""

    name = "W&B"
    requirement = "wandb"

    def __init__(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, group: str
    ) -> None:
        chosen, reason = choose_mode(config)
        for mode in (chosen, "offline"):
            if reason is not None:
                say(f"W&B continues offline: {reason}")
            if mode == "offline":
                # An offline run cannot be resumed: a second history would begin. It is replayed instead.
                shutil.rmtree(folder.wandb_path, ignore_errors=True)
            try:
                self.run = self._init(config, folder, settings, run_id, group, mode).experiment
                # Lightning has every chart drawn over its own count of steps, which stands still here: rows are epochs.
                self.run.define_metric("*", step_metric="epoch")
            except Exception as error:  # wandb raises its own, its service's and the operating system's
                reason = one_line(error)
            else:
                self.mode, self.replays = mode, mode == "offline"
                return
        raise RuntimeError(reason)

    @staticmethod
    def _init(
        config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, group: str, mode: str
    ) -> Any:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        quiet = wandb.Settings(init_timeout=INIT_SECONDS, silent=True, console="off", x_disable_stats=True)
        # Before init already: a warning about an argument that Lightning passes would be printed there.
        with at_home():
            wandb.setup(quiet)
        if wandb.run is not None:
            wandb.finish()
        # The mode goes to wandb.init, not to WandbLogger's `offline`: that one sets $WANDB_MODE for the
        # whole process, and the next run of a grid would take it for the user's wish.
        return WandbLogger(
            name=folder.name,
            project=config.project,
            entity=config.entity,
            save_dir=folder.path,
            id=run_id,
            mode=mode,
            group=group or None,
            job_type=job_type(config),
            tags=tags_of(settings),
            config=settings,
            settings=quiet,
        )

    def log(self, row: dict[str, float], step: int) -> None:
        self.run.log(row, step=step)

    def finish(self, whole: bool) -> None:
        self.run.finish(exit_code=0 if whole else 1)


class TrackioRun(Sink):
    """One run in trackio's database on this machine ($TRACKIO_DIR), which `trackio show` draws while it grows.

    trackio knows a run by its name and gives it another id each time, so an earlier one of that name is removed and
    its epochs are sent again.
    """

    name = "trackio"
    requirement = "snn-bench[trackio]"
    mode = "local"
    replays = True

    def __init__(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, group: str
    ) -> None:
        with on_this_machine():
            import trackio
            from trackio.utils import TRACKIO_DIR

            TRACKIO_DIR.mkdir(parents=True, exist_ok=True)
            # trackio itself would go on, warn, and keep nothing.
            if not os.access(TRACKIO_DIR, os.W_OK):
                raise PermissionError(f"{TRACKIO_DIR} cannot be written")
            for earlier in self._earlier(trackio, config.project, folder.name):
                if not earlier.delete():
                    raise RuntimeError(f"its earlier run {folder.name} could not be removed")
            self.run = trackio.init(
                project=config.project,
                name=folder.name,
                group=settings.get("reg"),
                config=settings,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        say(f"curves: trackio show --project {config.project}")

    @staticmethod
    def _earlier(trackio: Any, project: str, name: str) -> list[Any]:
        try:
            return [run for run in trackio.Api().runs(project) if run.name == name]
        except ValueError:
            return []  # there is no such project yet

    def log(self, row: dict[str, float], step: int) -> None:
        self.run.log(row, step=step)

    def finish(self, whole: bool) -> None:
        import trackio

        with on_this_machine():
            trackio.finish()


@contextmanager
def at_home() -> Iterator[None]:
    """$HOME, where it is not set: W&B's service, started now, would write its log to the terminal."""
    before = os.environ.get("HOME")
    if before:
        yield
        return
    os.environ.pop("HOME", None)
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without an entry in the password database
        home = gettempdir()
    os.environ["HOME"] = home
    try:
        yield
    finally:
        del os.environ["HOME"]
        if before is not None:
            os.environ["HOME"] = before


@contextmanager
def on_this_machine() -> Iterator[None]:
    """trackio without its prints, without a server of its own, without asking Hugging Face whose token it finds."""
    from huggingface_hub import constants

    hidden = {name: os.environ.pop(name) for name in TRACKIO_REMOTE if name in os.environ}
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        os.environ.update(hidden)


class LightningFiles(Sink):
    """One run in files of a logger of Lightning's, in a folder of the run's own; begun anew each time."""

    replays = True
    mode = "files"
    folder_name: ClassVar[str]

    def __init__(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, group: str
    ) -> None:
        path = folder.path / self.folder_name
        shutil.rmtree(path, ignore_errors=True)
        self.run = self.open(folder.path)
        self.run.log_hyperparams(settings)

    @abstractmethod
    def open(self, path: Path) -> Any:
        """The logger, which writes into `folder_name` below `path`."""

    def log(self, row: dict[str, float], step: int) -> None:
        self.run.log_metrics(row, step)
        self.run.save()

    def finish(self, whole: bool) -> None:
        self.run.finalize("success" if whole else "failed")


class CsvFile(LightningFiles):
    """`csv/metrics.csv`: a row an epoch, and a last one with the outcome."""

    name = "CSV"
    requirement = "lightning"
    folder_name = "csv"

    def open(self, path: Path) -> Any:
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(path, name=self.folder_name, version="", flush_logs_every_n_steps=1)


class TensorBoardFiles(LightningFiles):
    """`tensorboard/`: what `tensorboard --logdir` reads."""

    name = "TensorBoard"
    requirement = "snn-bench[tensorboard]"
    folder_name = "tensorboard"

    def open(self, path: Path) -> Any:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(path, name=self.folder_name, version="", default_hp_metric=False)


SINKS: dict[LoggerName, type[Sink]] = {
    LoggerName.wandb: WandbRun,
    LoggerName.trackio: TrackioRun,
    LoggerName.csv: CsvFile,
    LoggerName.tensorboard: TensorBoardFiles,
}


def chosen(config: LoggerConfig) -> list[LoggerName]:
    """The loggers of a run, in the order in which they were named; none beside others is passed over.

    Raises:
        BenchError: one does not exist.
    """
    names = [name for name, on in config.chosen.items() if on]
    for name in names:
        if name not in LoggerName.__members__:
            raise BenchError(f"logger.chosen has '{name}', which is no choice. {nearest(name, LoggerName.__members__)}")
    if config.name not in names:
        names = [config.name]
    return [LoggerName(name) for name in names if name != LoggerName.none]


def check(config: LoggerConfig) -> None:
    """Refuse loggers that cannot work here, before anything is trained.

    Raises:
        BenchError: a package is missing, or W&B's variables in the environment are none that it takes.
    """
    job_type(config)
    for name in chosen(config):
        if find_spec(name) is None:
            raise BenchError(
                f"logger={name} needs the package {name}, which is not installed: "
                f"pip install '{SINKS[name].requirement}'"
            )
        if name == LoggerName.wandb:
            check_environment()


def check_environment() -> None:
    """Refuse variables that W&B would stumble over.

    Raises:
        BenchError: names the variable, and what it can be.
    """
    mode, url = os.environ.get("WANDB_MODE"), os.environ.get("WANDB_BASE_URL")
    if mode is not None and mode not in WANDB_MODES:
        raise BenchError(f"$WANDB_MODE is '{mode}', which is no choice. {nearest(mode, WANDB_MODES)}")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
        raise BenchError(f"$WANDB_BASE_URL is '{url}', it must be an address like https://wandb.example.org")


class Tracker:
    """The loggers' side of one run; every failure ends in less logging, not in less run.

    Args:
        config: which loggers, their mode, project, entity.
        folder: the run's folder; W&B writes below it.
        settings: the config to show (`reg`, `strength`, `model`, `data`, `seed`, ...).
        run_id: of the W&B run.
        rows: epochs that are already finished; sent again where the logger begins anew.
        group: the runs of one setting share it, whatever their seeds.

    Attributes:
        sinks: the loggers that take rows.
        modes: how each that was chosen takes them, by its name for people.
    """

    def __init__(
        self,
        config: LoggerConfig,
        folder: RunFolder,
        settings: dict[str, Any],
        run_id: str,
        rows: list[dict[str, Any]],
        group: str = "",
    ) -> None:
        self.sinks: list[Sink] = []
        kinds = [SINKS[name] for name in chosen(config)]
        self.modes = {kind.name: "off" for kind in kinds}
        for kind in kinds:
            try:
                sink = kind(config, folder, settings, run_id, group)
            except Exception as error:  # whatever a logger stumbles over, the run goes on
                say(f"{kind.name} is off for this run: {one_line(error)}")
                continue
            self.sinks.append(sink)
            self.modes[kind.name] = sink.mode
            for row in rows if sink.replays else ():
                self._quietly(lambda sink, row=row: sink.log(flatten(row), row["epoch"] + 1), [sink])  # type: ignore[misc]

    @property
    def name(self) -> str:
        """Of the loggers, for people."""
        return ", ".join(self.modes) or "logger"

    @property
    def mode(self) -> str:
        """How they take the rows, "off" where they do not."""
        return ", ".join(self.modes.values()) or "off"

    def log(self, row: dict[str, Any]) -> None:
        """Send one epoch's line."""
        self._quietly(lambda sink: sink.log(flatten(row), row["epoch"] + 1), self.sinks)

    def finish(self, summary: dict[str, Any] | None, last_epoch: int) -> None:
        """Send the run's outcome and close it; None for a run that was cut off."""

        def send(sink: Sink) -> None:
            if summary:
                sink.log({key: value for key, value in summary.items() if value is not None}, last_epoch + 1)
            sink.finish(whole=summary is not None)

        self._quietly(send, self.sinks)

    def _quietly(self, act: Callable[[Sink], None], sinks: Sequence[Sink]) -> None:
        for sink in list(sinks):
            if sink not in self.sinks:
                continue
            try:
                act(sink)
            except Exception as error:  # the record on disk is complete without it
                say(f"{sink.name} stopped logging: {one_line(error)}")
                self.sinks.remove(sink)
                self.modes[sink.name] = "off"
