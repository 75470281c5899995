"""Hydra's sweeper of the suite: a grid whose failures stop nothing but themselves, and that writes no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus

from bench import grid
from bench.errors import BenchError, RunsFailed, first_line
from bench.grid import GridRun

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="bench",
    node=BasicSweeperConf(_target_="hydra_plugins.bench_sweeper.BenchSweeper"),
    provider="bench",
)


class BenchSweeper(BasicSweeper):
    """The grid of all values, or the rows of experiments, job by job.

    BasicSweeper writes `multirun.yaml` and ends at the first job that failed.
    """

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of every job, each combination once, in the order of the arguments."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (grid,) = self.split_arguments(overrides, max_batch_size=None)
        return [list(job) for job in dict.fromkeys(map(tuple, grid))]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run every job.

        Raises:
            BenchError: before the first job, if one of them cannot be composed or has no data.
            RunsFailed: after the last job, if any failed.
        """
        # Imported here: Hydra imports its plugins in every program, and this brings torch along.
        from bench.experiments import chosen

        assert self.launcher is not None
        names, settings = chosen([*self._parse_config(), *arguments])
        runs = self.of_experiments(names, settings) if names else self.of_grid(self.jobs(arguments))
        jobs = [list(run.overrides) for run in runs if not run.skipped]
        grid.opened(runs)
        # The job's name tells the job, wherever it runs, its place in the grid. The mode is an experiment file's,
        # which no job has.
        named = [
            [*job, f"hydra.job.name={i}/{len(jobs)}", "hydra.mode=MULTIRUN", *self.told(run)]
            for i, (job, run) in enumerate(zip(jobs, [run for run in runs if not run.skipped], strict=True), 1)
        ]
        returns, size = [], self.max_batch_size or max(len(named), 1)
        for start in range(0, len(named), size):
            returns.append(self.launcher.launch(named[start : start + size], initial_job_idx=start))
        self.raise_failures([result for batch in returns for result in batch], jobs)
        return returns

    @staticmethod
    def told(run: GridRun) -> list[str]:
        """The setting by which a job learns, wherever it runs, which experiments it is run for."""
        return [f"+hydra.job.env_set.BENCH_EXPERIMENT='{','.join(run.experiments)}'"] if run.experiments else []

    @staticmethod
    def of_experiments(names: Sequence[str], settings: Sequence[str]) -> list[GridRun]:
        """The runs of some experiments, each once; says what is planned."""
        from bench.experiments import expand, identified, load, plan

        runs: dict[str, GridRun] = {}
        for name in names:
            planned = plan(name, settings)
            print(planned.said, flush=True)
            jobs = expand(load(name), settings)
            for job, identity, facts in identified(jobs):
                skipped = identity not in planned.missing
                known = runs.get(identity) or GridRun(identity, Path(facts["runs"]), job.overrides, skipped)
                runs[identity] = replace(known, experiments=tuple(dict.fromkeys([*known.experiments, name])))
        if all(run.skipped for run in runs.values()):
            print("nothing to run; force=true runs it again", flush=True)
        return list(runs.values())

    @staticmethod
    def of_grid(jobs: Sequence[list[str]]) -> list[GridRun]:
        """The runs that jobs stand for; says how many have a record already.

        Raises:
            BenchError: one of them cannot be composed, or has no data.
        """
        from bench.config.compose import compose_all
        from bench.experiments import is_finished
        from bench.records.folder import runs_folder
        from bench.records.identity import run_id, science

        runs = []
        for job, cfg in zip(jobs, compose_all(jobs), strict=True):
            folder, identity = runs_folder(cfg.runs), run_id(science(cfg))
            runs.append(GridRun(identity, folder, tuple(job), not cfg.force and is_finished(folder, identity)))
        done = sum(run.skipped for run in runs)
        hint = "; force=true runs them again" if done else ""
        print(f"{len(jobs)} runs, {done} finished, {len(jobs) - done} to do{hint}", flush=True)
        return runs

    @staticmethod
    def raise_failures(results: Sequence[JobReturn], jobs: Sequence[Sequence[str]]) -> None:
        """Name the jobs that failed.

        Raises:
            RunsFailed: some did.
        """
        # `return_value` would print and raise.
        failed = [(i, r._return_value) for i, r in enumerate(results) if r.status is JobStatus.FAILED]
        if not failed:
            return

        def line(place: int, error: Any) -> str:
            reason = first_line(error) if isinstance(error, BenchError) else type(error).__name__
            return f"  [{place + 1}/{len(jobs)}] {' '.join(jobs[place])}: exit {code(error)}, {reason}"

        lines = [f"{len(failed)} of {len(jobs)} runs failed", *(line(*item) for item in failed)]
        summary = RunsFailed("\n".join(lines))
        summary.code = max(code(error) for _, error in failed)
        raise summary


def code(error: Any) -> int:
    """The exit status of a job that ended with this exception."""
    return error.code if isinstance(error, BenchError) else 1
