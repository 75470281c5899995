"""The runs that an experiment's rows stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.experiments import Experiment, Row, expand, identified


def run_ids(
    experiment: Experiment, budget: str, seeds: Sequence[int], data: Mapping[str, tuple[str, str]] | None = None
) -> list[tuple[Row, int, str]]:
    """Row, seed and run id of every run, row by row; `data` are (checksum, copy) of data sets that are not there."""
    jobs = expand(experiment, [f"budget={budget}", f"seed={','.join(map(str, seeds))}"])
    jobs.sort(key=lambda job: experiment.rows.index(job.row))
    return [(job.row, job.seed, name) for job, name, _ in identified(jobs, data)]
