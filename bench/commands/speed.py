"""`bench speed`: its command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.commands.parsing import Parser
from bench.commands.words import among, overrides, speed_settings
from bench.errors import BenchError

EPILOG = """\
settings, with their defaults:
  model=cnn data=cifar10 time_steps=4, and all others of `bench run`, under budget=paper
  batch_size=50   images in a step
  peers=all       or none, or some of spikingjelly_eager,spikingjelly_best,snntorch,norse
  rounds=7        each arm is measured that often, in a process of its own, in turn
  seconds=3       how long one measurement takes, about, warm-up left out
  steps=null      how many steps it takes instead
  reg=...         compares regularizers with none, and with what SpikingJelly's users write for them: reg=all, or a
                  list of sets as a grid of runs has it, reg=spikepen,[spikepen,dropout]; then the defaults are
                  budget=quick data=mnist batch_size=64 seconds=1

bench speed startup [rounds=7] [key=value ...] measures a run's start: from Enter to the end of its first training step.
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("speed", EPILOG)
    says = "of this command or of `bench run`; or, first, `startup`"
    parser.add_words("key=value", says, among("startup"), speed_settings, overrides)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON there and a chart beside it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write both there, say reports/speed")
    parser.add_argument("--redraw", type=Path, metavar="DIR", help="measure nothing: write DIR's page and charts anew")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Measure how fast a network trains, beside its peers.

    Raises:
        BenchError: a mistaken setting, or the machine could not do it.
    """
    options = parser().parse_intermixed_args(arguments)
    from bench.speed import command

    if options.redraw is not None:
        if options.words or options.json or options.out:
            raise BenchError("--redraw measures nothing: it takes no settings, --json or --out beside it")
        command.redraw(options.redraw)
    else:
        command.main(options.words, options.json, options.out)
