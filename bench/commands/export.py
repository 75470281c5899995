"""`bench export`: a trained network for elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.commands.parsing import Parser, add_runs
from bench.commands.words import runs
from bench.errors import BenchError, EnvironmentFault
from bench.files import whole, write_atomic
from bench.records.folder import CARD, WEIGHTS, RunFolder

if TYPE_CHECKING:
    from bench.models.base import SpikingNetwork

EPILOG = """\
  bench export RUN --nir net.nir --onnx net.onnx  a time step of it, for other frameworks and for chips
  bench export RUN --hub DIR                      config.json, model.safetensors, README.md: `bench.load("DIR")`
  bench export RUN --zoo mnist-1k/cnn/none        into reports/weights/: `bench.load("mnist-1k/cnn/none")`
"""


def parser() -> Parser:
    """The command line."""
    parser = Parser("export", EPILOG)
    parser.add_argument(
        "run", nargs="?", metavar="RUN", completes=[runs], help="a run id, or a folder of a run with weights"
    )
    parser.add_argument("--nir", type=Path, metavar="FILE", help="a new file: a time step as NIR, in HDF5")
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="a new file: a time step as ONNX, with its potentials"
    )
    parser.add_argument("--hub", type=Path, metavar="DIR", help="a new folder, as the Hugging Face hub takes it")
    parser.add_argument("--zoo", metavar="NAME", help="WORKLOAD/MODEL/REG, an entry of the zoo; needs a clean commit")
    parser.add_argument("--into", type=Path, default=Path("reports/weights"), metavar="DIR", help="zoo [%(default)s]")
    add_runs(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write a trained network to where others find it.

    Raises:
        BenchError: no such run, it has no outcome or no weights, a target is taken, or a format has no words for it.
    """
    options = parser().parse_intermixed_args(arguments)
    if options.run is None:
        raise BenchError("name a run: bench export RUN --hub DIR")
    files = {format: path for format, path in (("nir", options.nir), ("onnx", options.onnx)) if path is not None}
    folder = options.hub is not None or options.zoo is not None
    if options.hub is not None and options.zoo is not None:
        raise BenchError("--hub DIR or --zoo NAME, one of the two")
    if not folder and not files:
        raise BenchError("export where? Give --nir FILE, --onnx FILE, --hub DIR or --zoo NAME")
    from bench.console import say
    from bench.weights.store import find

    own = options.runs / options.run
    path = own.resolve() if own.is_dir() else find(options.run)
    result = RunFolder(path.parent, path.name).finished()
    # What was exported before has weights and no record.
    weights = path.suffix == ".safetensors" or (path / WEIGHTS).is_file()
    if (folder or not weights) if result is None else result["status"] != "finished":
        raise BenchError(f"{path.name} has no outcome: there is no network to export")
    for target in files.values():
        free(target)
    if folder:
        assert result is not None
        target = options.hub if options.hub is not None else place_in_zoo(options.into, options.zoo, path, result)
        free(target)
        write(path, result, target, None if options.hub is not None else options.zoo)
        say(f"{path.name}: exported to {target}; bench.load({str(options.zoo or target)!r}) has it")
    if files:
        write_step(path, files)


def free(target: Path) -> None:
    """Refuse to write over anything.

    Raises:
        BenchError: there is something.
    """
    if target.exists():
        raise BenchError(f"{target} is there already; name another, or remove it")


def write_step(path: Path, files: Mapping[str, Path]) -> None:
    """Write a time step of a network in formats that others read.

    Args:
        path: of the run's folder, or of weights.
        files: the file of each format, `nir` and `onnx`.

    Raises:
        BenchError: a format has no words for something in the network; the file is not there then.
        EnvironmentFault: a file cannot be written.
    """
    from bench.console import say
    from bench.exchange.graph import follow
    from bench.exchange.to_nir import write_nir
    from bench.exchange.to_onnx import write_onnx
    from bench.weights.store import load

    network: SpikingNetwork = load(path)
    graph, about = follow(network), network.about
    said: dict[str, str] = {
        "network": about["model"]["name"],
        "run": str(about.get("run_id")),
        "commit": str(about.get("commit")),
        "suite": about["suite"],
        "classes": ", ".join(map(str, about["classes"])),
        "normalization": f"(pixel / 255 - mean) / std of each channel; mean {about['mean']}, std {about['std']}",
    }
    for format, target in files.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{target} could not be written: {error.strerror or error}") from error
        (write_nir if format == "nir" else write_onnx)(target, graph, said)
        note = f"; its steps' outputs become the answer by their {graph.read} over {graph.time_steps} steps"
        if format == "nir" and any(neuron.v_reset is None for _, neuron in graph.neurons):
            note += "; its neurons are reset softly (by v_threshold), which only the metadata can say: tell the reader"
        say(f"{path.name}: a time step in {target}{note}")


def place_in_zoo(zoo: Path, name: str, path: Path, result: dict[str, Any]) -> Path:
    """Where an entry of the zoo goes.

    Args:
        zoo: its folder.
        name: `workload/model/reg`.
        path: of the run's folder.
        result: its record.

    Raises:
        BenchError: the name is none, or says other than the record; or nobody could repeat the run.
    """
    from bench.commands.submit import prepared

    if re.fullmatch(r"[\w.+-]+/[\w.+-]+/[\w.+-]+", name, re.ASCII) is None or ".." in name:
        raise BenchError(f"--zoo {name}: an entry is called WORKLOAD/MODEL/REG, as in mnist-1k/cnn/none")
    _, model, reg = name.split("/")
    for what, given, own in (("network", model, result["model"]), ("regularizer", reg, result["reg"])):
        if given != own:
            raise BenchError(f"--zoo {name}: the run's {what} is {own}, not {given}")
    prepared(path)
    return zoo / name


def write(path: Path, result: dict[str, Any], target: Path, zoo: str | None) -> None:
    """Write weights and card, and for the hub what they are as JSON.

    Args:
        path: of the run's folder.
        result: its record.
        target: the folder, which is not there yet.
        zoo: the entry's name; None is for the hub.

    Raises:
        BenchError: the run has no weights, or too many for the zoo.
        EnvironmentFault: the folder cannot be written.
    """
    from bench.commands.submit import LARGEST
    from bench.weights.card import card
    from bench.weights.store import load, write_weights

    network: SpikingNetwork = load(path)
    said = {**network.about, "run_id": result["run_id"], "commit": result["commit"]}
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as part:
        part.mkdir()
        if (path / WEIGHTS).is_file():
            shutil.copyfile(path / WEIGHTS, part / WEIGHTS)
        else:
            write_weights(part / WEIGHTS, network, said)
        if zoo is not None:
            size = (part / WEIGHTS).stat().st_size
            if size > LARGEST:
                raise BenchError(f"its weights are {size / 2**20:.1f} MB, the zoo takes at most {LARGEST // 2**20}")
            write_atomic(part / CARD, card(result, said, zoo))
            return
        write_atomic(part / "config.json", json.dumps(said, indent=1) + "\n")
        write_atomic(part / "README.md", card(result, said))
