"""`bench eval`: its command line, and the tables of what the probes measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.parsing import Parser, add_runs, folders
from bench.commands.words import eval_settings, runs
from bench.records.probe import REASONS

EPILOG = """\
  bench eval RUN probe=noise,adversarial          into RUN/probes/noise.json, RUN/probes/adversarial.json
  bench eval --all probe=corruptions corruptions.images=200
  bench list probes                               what there is, with settings and defaults

settings, with their defaults; a probe's own are written PROBE.KEY=VALUE:
  probe=NAME,...    which probes; what is measured is skipped
  force=false       measure again what is there
  seed=0            of the probes, not of the runs
  bake=true         fold what regularizers did into plain weights first, as for export
  root=null         where the data sets lie, if no longer where the run had them
  path=null         likewise the folder of images of data=folder
  accelerator=auto  auto, cpu or gpu
  ops=auto          which kernels
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("eval", EPILOG)
    parser.add_words("RUN", "run ids or folders of runs, and settings key=value", runs, eval_settings)
    parser.add_argument("--all", action="store_true", help="all finished runs")
    add_runs(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Probe finished runs.

    Raises:
        BenchError: an unknown probe, setting or run, or one that cannot be probed.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.console import say, table
    from bench.probes import evaluate

    settings = [word for word in options.words if "=" in word and not Path(word).is_dir()]
    cfg = evaluate.parse(settings)
    paths = folders([word for word in options.words if word not in settings], options.all, options.runs)
    for path, name, content, there in evaluate.evaluate(paths, cfg, say):
        # Not as the table's title: that would be folded to the table's width.
        say(f"{path.name}: {name}" + (", measured before; force=true measures again" if there else ""))
        rows = content["rows"]
        table("", list(rows[0]), [[evaluate.shown(value) for value in row.values()] for row in rows])
        for reason in content.get(REASONS, ()):
            say(f"unreliable: {reason}")
