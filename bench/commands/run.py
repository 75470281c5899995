"""`bench run`: everything that Hydra does with a command line, and one run of it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench import __version__, grid, startup
from bench.commands import words
from bench.commands.parsing import Parser
from bench.console import say
from bench.errors import BenchError, RunsFailed, disk_full

if TYPE_CHECKING:
    from omegaconf import DictConfig


REFUSED = ("config_path", "config_name", "experimental_rerun")
"""Hydra's options that would replace what a run is made of."""


def parser() -> Parser:
    """The flags of Hydra 1.3 that are taken, for completion alone: Hydra reads the line itself, but imports slowly."""
    parser = Parser("run")
    parser.add_argument("overrides", nargs="*", completes=[words.overrides])
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--info", "-i", choices=["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"])
    for names in (
        ("--multirun", "-m"), ("--run", "-r"), ("--resolve",), ("--hydra-help",), ("--shell-completion", "-sc"),
        ("--version",),
    ):  # fmt: skip
        parser.add_argument(*names, action="store_true")
    for names in (("--package", "-p"), ("--config-dir", "-cd")):
        parser.add_argument(*names)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Train one configuration, or a grid of them: everything that Hydra does with a command line.

    Raises:
        BenchError: a bad command line, or a multirun some of whose runs failed.
        SystemExit: after `--help` and the like, and with the exit code of a single run that failed.
    """
    startup.hold()
    try:
        hydra_app(arguments)
    finally:
        startup.ready(keep=False)


def hydra_app(arguments: Sequence[str]) -> None:
    """See `main`."""
    import hydra
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import get_args_parser

    from bench.config.compose import check
    from bench.config.explain import explained
    from bench.config.options import beside, config_dir, register_configs

    register_configs()
    # Hydra itself cannot read options between overrides (`model=sew -m seed=0,1`).
    reader = get_args_parser()
    reader.error = refuse  # type: ignore[method-assign]
    version = next(action for action in reader._actions if action.dest == "version")
    version.version = f"snn-bench {__version__}"  # type: ignore[attr-defined]
    given = reader.parse_intermixed_args(arguments)
    for name in REFUSED:
        if getattr(given, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise BenchError(f"{flag} is not taken: runs start from configs/config.yaml; own files: --config-dir DIR")
    overrides = given.overrides
    flags = [argument for argument in arguments if argument not in overrides]
    shows = given.help or given.hydra_help or given.cfg or given.info or given.shell_completion
    if not (shows or given.run or given.multirun) and any(line.startswith("experiment=") for line in overrides):
        # Its file says so too, but Hydra reads that only when nothing else on the line is wrong.
        flags += ["--multirun"]
    app = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)
    argv, full_error, get_mode = sys.argv, os.environ.get("HYDRA_FULL_ERROR"), Hydra.get_mode
    # With it set, Hydra lets exceptions through instead of printing them and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra would compose all settings once more, only to read off them what the flags have said.
    if not any(line.startswith("hydra.mode=") for line in overrides):
        Hydra.get_mode = lambda self, **_: None  # type: ignore[method-assign]
    # A flag with an optional value (`--info`) must not take the first override for it.
    sys.argv = ["bench run", *flags, "--", *overrides]
    try:
        with beside(None if given.config_dir is None else Path(given.config_dir)), explained(), grid.following() as of:
            check(overrides)
            try:
                app()
            except RunsFailed:
                show_grid(of())
                raise
            show_grid(of())
    finally:
        sys.argv, Hydra.get_mode = argv, get_mode  # type: ignore[method-assign]
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def show_grid(of: grid.Grid | None) -> None:
    """Print what came out of a grid, if there was one."""
    if of is not None and of.runs:
        # Imported here: a single run needs no statistics.
        from bench.commands.outcome import show

        show(of)


def refuse(message: str) -> NoReturn:
    """In place of argparse's `error`, which prints a page.

    Raises:
        BenchError: always.
    """
    raise BenchError(f"{message}; `bench run --help` says more")


def job(cfg: DictConfig) -> Any:
    """Hydra's task function: one run. A fault is reported here, where it happened: a launcher may have brought
    the job to another machine."""
    startup.hold()  # a launcher may have started this process
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from bench.config.compose import settle
    from bench.training.run import run

    about = HydraConfig.get()
    many = about.mode is RunMode.MULTIRUN
    if many:
        print(f"[{about.job.name}] {' '.join(about.overrides.task)}", flush=True)
    try:
        result = run(settle(cfg))
        if many:
            tell(grid.ended())
        return result
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        fault: Exception = error
    except BrokenPipeError as error:
        raise SystemExit(141) from error
    except Exception as error:
        fault = disk_full(error) or error
        if fault is error:
            traceback.print_exc()
        else:
            print(f"error: {fault}", file=sys.stderr, flush=True)
    if many:
        tell(grid.ended(failed=True))
        raise fault
    # Not an Exception: Hydra would print a line of its own before it passes one on.
    raise SystemExit(fault.code if isinstance(fault, BenchError) else 1)


def tell(progress: str) -> None:
    """Say how far the grid is, if anything is to be said."""
    if progress:
        say(progress)
