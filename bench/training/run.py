"""The story of one run: config -> data -> model -> regularizers -> task -> trainer -> record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bench import startup
from bench.config.component import settings
from bench.config.limits import check_limits
from bench.console import console, say
from bench.errors import BenchError, Busy
from bench.records import provenance
from bench.records.folder import RunFolder
from bench.records.identity import run_id, science
from bench.records.schema import FIELD
from bench.training import launcher, logger
from bench.training.result import compile_result, headline, logged_config, setting_name, strength_of, write_env
from bench.training.source import chosen, start, twin_of, wants_source
from bench.training.summary import summary_table

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import Splits
    from bench.models.base import SpikingNetwork
    from bench.training.base_task import BaseTask
    from bench.training.progress import Reporter
    from bench.training.setup import Run

POLL = 2.0  # seconds between looks at a source run that another process trains


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train one configuration and leave its record; where there is one, it is returned as it is.

    Raises:
        BenchError: bad input, or (an EnvironmentFault) a machine that could not do it.
    """
    check_limits(cfg)
    logger.check(cfg.logger)
    facts = science(cfg)
    folder = RunFolder(cfg.runs, run_id(facts))
    done = None if cfg.force else folder.finished()
    if done is not None:
        say(f"{folder.name} {ended(done)}; force=true runs it again")
        return done
    if cfg.trainer.devices == 1:
        return train(cfg, facts)
    if starts_anew(cfg, folder):
        source_of(cfg)  # trained here, so that no process of the run does it
    launcher.launch(cfg)
    result = folder.finished()
    assert result is not None, "the processes of the run have left its record"
    return result


def ended(result: dict[str, Any]) -> str:
    """How a run came to its end, as it follows the run's name.

    Args:
        result: its record.
    """
    if result["status"] != "finished":
        end = f"it diverged ({result['status_reason']})"
    else:
        test = FIELD["test.acc"]
        end = f"test {test.with_unit(test.value(result))}"
    if result["numerics"] != provenance.NUMERICS:
        before = "before they were counted" if result["numerics"] is None else f"by numerics {result['numerics']}"
        end += f" (computed {before}; today's are {provenance.NUMERICS})"
    return f"is finished: {end}"


def starts_anew(cfg: DictConfig, folder: RunFolder) -> bool:
    """Whether no finished epoch is there to go on from."""
    return cfg.force or not folder.checkpoint_path.exists()


def source_of(cfg: DictConfig) -> RunFolder | None:
    """The folder of the source run, which is trained first where need be; None for a run that starts from none.

    Raises:
        BenchError: the source that was asked for has not finished, or is of another network or data set.
    """
    if not wants_source(cfg):
        return None
    return trained(twin_of(cfg)) if cfg.model.twin == "auto" else chosen(cfg)


def trained(cfg: DictConfig) -> RunFolder:
    """The folder of a source run that has finished: now, earlier, or in another process.

    Args:
        cfg: of the source run.

    Raises:
        BenchError: it diverged.
    """
    folder = RunFolder(cfg.runs, run_id(science(cfg)))
    say(f"this run starts from its non-spiking twin, {folder.name}")
    waiting = False
    while True:
        try:
            result = run(cfg)
            break
        except Busy:
            if not waiting:
                say(f"waiting for the twin {folder.name}, which another process trains")
            waiting = True
            time.sleep(POLL)
    if result["status"] != "finished":
        raise BenchError(f"the twin {folder.name} diverged ({result['status_reason']}); lower model.twin_lr")
    return folder


def train(cfg: DictConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Train, evaluate and leave the record, from the start or from the last finished epoch.

    Returns:
        The record; of a process that is not the run's first, which has it, nothing.
    """
    # Imported here: Lightning takes seconds, and a finished run is skipped without it.
    from bench.data import prepare
    from bench.training import distributed, setup
    from bench.training.progress import Reporter

    startup.ready()
    run = setup.settle_run(cfg, facts)
    splits = prepare(
        settings(cfg.data),
        seed=cfg.seed,
        batch_size=cfg.trainer.batch_size,
        eval_batch_size=setup.eval_batch_size(cfg.trainer.batch_size),
        max_train_images=cfg.trainer.max_train_images,
        eval_batches=cfg.trainer.limit_test_batches,
        device=run.device,
    )
    reporter = Reporter(cfg.trainer.epochs)
    # Built before the folder is touched: settings that do not fit leave nothing behind.
    task = setup.make_task(cfg, splits, on_step=reporter.advance)
    if starts_anew(cfg, run.folder) and (source := source_of(cfg)) is not None:
        start(cfg, task.model, source)
    splits.train.take_share(distributed.rank(), distributed.ranks())
    if splits.train.batch_size == distributed.ranks() and not cfg.trainer.sync_batchnorm:
        refuse_single_values(task.model, splits.train_clean.sample(1, cfg.seed))
    if distributed.rank() > 0:
        follow(run, task, splits, reporter)
        return {}
    with run.folder.locked():
        if cfg.force:
            run.folder.clear()
        return lead(run, task, splits, reporter)


def refuse_single_values(model: SpikingNetwork, image: Tensor) -> None:
    """Refuse a network that would normalize a batch of one image by a single value of each channel.

    Args:
        model: before its first step.
        image: one, `[1, C, H, W]`.

    Raises:
        BenchError: names the layer.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    single: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def see(norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0][:, 0].numel() == 1:
                single.append(name)

        return see

    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        return
    hooks = [norm.register_forward_pre_hook(look(name)) for name, norm in norms.items()]
    was_training = model.training
    try:
        # Dropped after this, whatever the pass draws: the run's own numbers come as without it.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval()
            model(image.to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
        model.forget()
    if single:
        raise BenchError(
            f"model.{single[0]} normalizes each channel over a batch, which here is a single value: one image on each "
            "device, of one pixel at that layer; raise trainer.batch_size, or let the network shrink the image less"
        )


def lead(run: Run, task: BaseTask, splits: Splits, reporter: Reporter) -> dict[str, Any]:
    """Train in the folder that is ours, and leave the record in it."""
    from bench.training import distributed, fit, setup
    from bench.training.logger import Tracker
    from bench.training.recorder import Recorder
    from bench.training.task import Diverged

    started, folder = provenance.now(), run.folder
    checkpoint = setup.find_checkpoint(folder, task)
    folder.write_config(OmegaConf.to_yaml(run.cfg, resolve=True))
    rows = folder.cut_back(checkpoint["epoch"] + 1 if checkpoint else 0)
    distributed.agree(len(rows))
    env = write_env(run, splits, started, resumed=bool(rows))
    if rows:
        say(f"{folder.name} goes on after epoch {len(rows)} of {run.epochs}")
    else:
        where = f"{env['hardware']}, {run.kernels} kernels, {run.precision}"
        say(f"{folder.name}: {splits.train.images:,} training images, {run.epochs} epochs; {where}")
    settings_ = logged_config(run.facts, strength_of(task))
    tracker = Tracker(run.cfg.logger, folder, settings_, env["wandb_id"], rows, setting_name(run.facts))
    trainer = fit.make_trainer(run, [reporter, Recorder(folder, tracker, run.epochs)])
    outcome, reason = None, None
    try:
        outcome = fit.fit_and_test(run, trainer, task, splits, done=len(rows))
    except Diverged as error:
        reason = str(error)
    except BaseException:
        tracker.finish(None, len(folder.rows()))
        raise
    result = compile_result(run, env, task, splits, outcome, reason)
    if reason is None:
        keep_weights(folder, task, result)
    folder.finish(result)
    tracker.finish(headline(result, outcome), len(folder.rows()))
    console().print(summary_table(result, str(folder.path), tracker.name, tracker.mode))
    return result


def keep_weights(folder: RunFolder, task: BaseTask, result: dict[str, Any]) -> None:
    """Leave the trained network beside the record; the task is of no use afterwards."""
    from bench.weights import store

    assert task.about is not None, "a run's task knows what it is"
    try:
        store.keep(folder, task.model, task.regs, task.about, result)
    except BenchError as error:
        if error.code != BenchError.code:
            raise
        say(f"{folder.name} keeps no weights: {error}")


def follow(run: Run, task: BaseTask, splits: Splits, reporter: Reporter) -> None:
    """Train beside the process that leaves the record: another device's part of each batch."""
    from bench.training import distributed, fit
    from bench.training.recorder import Recorder
    from bench.training.task import Diverged

    done: int = distributed.agree(None)
    trainer = fit.make_trainer(run, [reporter, Recorder(run.folder, None, run.epochs)])
    with suppress(Diverged):  # as in the process that leaves the record, at the same step
        fit.fit_and_test(run, trainer, task, splits, done)
