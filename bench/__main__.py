"""The command line: the first word names a command; every fault is a line, and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bench import __version__
from bench.commands import COMMANDS
from bench.errors import BenchError, disk_full, nearest

SUMMARIES = "\n".join(f"  {name:<12}{command.summary}" for name, command in COMMANDS.items())

HELP = f"""\
usage: bench COMMAND ...

Regularizers for spiking neural networks, compared: which one buys how much accuracy for how many spikes.

{SUMMARIES}

  bench run model=sew reg=spikepen
  bench run -m model=cnn,sew reg=none,spikepen seed=0,1,2

Exit status: 0 done, 1 a fault of the machine or of the suite, 2 bad input, 130 interrupted."""


def unheard() -> None:
    """Let what is left of the output go nowhere: Python would complain once more at exit that nobody takes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its name and arguments; those of the process if left out.

    Returns:
        The exit status.
    """
    # Before torch starts its threads: where another process wants a core too, threads that wait busily for each
    # other cost several times what sleeping costs on a quiet machine (2-4x against about 10 %). A short while of it,
    # some 10 microseconds, costs 4 % there, and many small operations take half the time.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    command, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if command in ("-h", "--help", "help"):
            print(HELP)
        elif command == "--version":
            print(f"snn-bench {__version__}")
        elif command not in COMMANDS:
            raise BenchError(f"there is no command '{command}'. {nearest(command, COMMANDS)}")
        else:
            COMMANDS[command].load().main(arguments)
        sys.stdout.flush()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last finished epoch", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`head`) has seen enough.
        unheard()
        return 141
    except OSError as error:
        if (fault := disk_full(error)) is None:
            raise
        unheard()
        print(f"error: {fault}", file=sys.stderr)
        return fault.code
    except SystemExit as done:
        if isinstance(done.__context__, BrokenPipeError):
            # So rich ends a process whose reader has seen enough, with a status of its own; and so does a run.
            unheard()
            return 141
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
