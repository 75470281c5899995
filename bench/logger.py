"""Weights & Biases: which mode, a run that never fails because of it, and the rows it is sent."""

from __future__ import annotations

import os
import shutil
import threading
import urllib.error
import urllib.request
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import urlsplit

from bench.config import LoggerConfig
from bench.console import say
from bench.results import RunFolder

ANSWER_SECONDS = 2.0
INIT_SECONDS = 30.0


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


def flatten(row: dict[str, Any]) -> dict[str, float]:
    """One line of `metrics.jsonl` as W&B keys: `test/acc`, `spike_rate/test`, `spike_rate_layer/<name>`."""
    flat: dict[str, Any] = {"epoch": row["epoch"], "lr": row["lr"], "images_per_s": row["images_per_s"]}
    for split in ("train", "val", "test"):
        for key, value in (row.get(split) or {}).items():
            flat[f"{key}/{split}" if key.startswith("spike_rate") else f"{split}/{key}"] = value
    flat.update({f"penalty/{name}": value for name, value in row["penalties"].items()})
    flat.update({f"spike_rate_layer/{name}": rate for name, rate in row["layers"].items()})
    return {key: value for key, value in flat.items() if value is not None}


class Tracker:
    """The W&B side of one run, behind Lightning's WandbLogger; every failure ends in less logging, not in less run.

    Args:
        config: mode, project, entity.
        folder: the run's folder; W&B writes below it.
        settings: the flat config to show (`reg`, `strength`, `model`, `data`, `seed`, ...).
        run_id: of the W&B run.
        rows: epochs that are already finished; sent again when the run is offline.
    """

    def __init__(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, rows: list[dict[str, Any]]
    ) -> None:
        self.mode, reason = "off", None
        self.logger: Any = None
        if config.name == "wandb":
            self.mode, reason = choose_mode(config)
            self._start(config, folder, settings, run_id, reason)
        if self.mode == "offline":
            for row in rows:
                self.log(row)

    def _start(
        self, config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, reason: str | None
    ) -> None:
        for mode in (self.mode, "offline"):
            if reason is not None:
                say(f"W&B continues offline: {reason}")
            if mode == "offline":
                # An offline run cannot be resumed: a second history would begin. It is replayed instead.
                shutil.rmtree(folder.wandb_path, ignore_errors=True)
            try:
                self.logger, self.mode = self._init(config, folder, settings, run_id, mode), mode
                return
            except Exception as error:  # wandb raises its own, its service's and the operating system's
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        say(f"W&B is off for this run: {reason}")
        self.logger, self.mode = None, "off"

    @staticmethod
    def _init(config: LoggerConfig, folder: RunFolder, settings: dict[str, Any], run_id: str, mode: str) -> Any:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        quiet = wandb.Settings(init_timeout=INIT_SECONDS, silent=True, console="off", x_disable_stats=True)
        # Before init already: a warning about an argument that Lightning passes would be printed there.
        wandb.setup(quiet)
        if wandb.run is not None:
            wandb.finish()
        # The mode goes to wandb.init, not to WandbLogger's `offline`: that one sets $WANDB_MODE for the
        # whole process, and the next run of a grid would take it for the user's wish.
        logger = WandbLogger(
            name=folder.name,
            project=config.project,
            entity=config.entity,
            save_dir=folder.path,
            id=run_id,
            mode=mode,
            config=settings,
            settings=quiet,
        )
        _ = logger.experiment
        return logger

    def log(self, row: dict[str, Any]) -> None:
        """Send one epoch's line."""
        self._quietly(lambda: self.logger.experiment.log(flatten(row), step=row["epoch"]))

    def finish(self, summary: dict[str, Any] | None, last_epoch: int) -> None:
        """Send the run's outcome and close it; None for a run that was cut off."""

        def send() -> None:
            if summary:
                shown = {key: value for key, value in summary.items() if value is not None}
                self.logger.experiment.log(shown, step=last_epoch + 1)
            self.logger.experiment.finish(exit_code=0 if summary else 1)

        self._quietly(send)

    def _quietly(self, act: Any) -> None:
        if self.logger is None:
            return
        try:
            act()
        except Exception as error:  # the record on disk is complete without W&B
            say(f"W&B stopped logging: {type(error).__name__}: {error}")
            self.logger, self.mode = None, "off"
