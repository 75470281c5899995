"""`bench predict`: what a trained network says of images in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.commands.parsing import Parser, add_runs
from bench.commands.words import runs
from bench.errors import BenchError
from bench.files import whole

if TYPE_CHECKING:
    import numpy as np

    from bench.models.base import SpikingNetwork
    from bench.models.predict import Prediction

EPILOG = """\
  bench predict RUN photo.png scans/              a table: label, its probability after each time step, spikes
  bench predict mnist-1k/cnn/none 7.png --raster 7-spikes.png
"""

SHOWN_STEPS = 8
"""Of more time steps than these a table shows some."""


def parser() -> Parser:
    """The command line."""
    parser = Parser("predict", EPILOG)
    says = "a run id, a folder with weights (run, record or export), or a network of the zoo"
    parser.add_argument("run", nargs="?", metavar="RUN", completes=[runs], help=says)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="files, or folders of images")
    parser.add_argument("--resize", action="store_true", help="make images of another size or mode fit")
    parser.add_argument("--raster", type=Path, metavar="FILE.png", help="draw when each neuron spikes for one image")
    parser.add_argument("--json", action="store_true", help="as JSON, with the probabilities of all classes")
    add_runs(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Classify images.

    Raises:
        BenchError: no such network or image, or one that does not fit the network.
    """
    options = parser().parse_intermixed_args(arguments)
    if not options.images:
        raise BenchError("name a run and its images: bench predict RUN IMAGE...")
    from bench.console import say, table
    from bench.data.images import pictures
    from bench.weights.store import load

    paths = [path for place in options.images for path in pictures(place)]
    if options.raster is not None and len(paths) != 1:
        raise BenchError(f"--raster draws one image, these are {len(paths)}")
    if options.raster is not None and options.raster.suffix != ".png":
        raise BenchError(f"--raster writes a PNG, and {options.raster} is called otherwise")
    own = options.runs / options.run
    network = load(own if own.is_dir() else options.run)
    images = fitting(network, paths, options.resize)
    seen = network.predict(images)
    if options.json:
        print(json.dumps(rows(paths, seen), indent=1))
    else:
        steps = shown_steps(len(seen.by_step))
        head = ["image", "label", "probability", *(f"t = {t + 1}" for t in steps[:-1]), "spikes"]
        table("", head, [cells(path, seen, place, steps) for place, path in enumerate(paths)])
    if options.raster is not None:
        draw(network, images[0], seen.labels[0], options.raster)
        say(f"{options.raster} drawn")


def fitting(network: SpikingNetwork, paths: Sequence[Path], resize: bool) -> np.ndarray:
    """Images of files, uint8 `[N, C, H, W]` of the size that the network's data set has.

    Args:
        network: that they are for.
        paths: of `bench.data.images.pictures`.
        resize: make those fit that do not.

    Raises:
        BenchError: one cannot be read, or does not fit and is not to be changed.
    """
    import numpy as np

    from bench.data.images import picture, resized

    wanted = network.spec.raw_shape or network.spec.image_shape
    takes = {wanted, network.spec.image_shape}
    images = []
    for path in paths:
        pixels = picture(path)
        if resize and pixels.shape != wanted:
            pixels = resized(pixels, wanted)
        if pixels.shape not in takes:
            raise BenchError(f"{path} is {described(pixels.shape)}, the network takes {described(wanted)}: --resize")
        images.append(pixels)
    if len({image.shape for image in images}) > 1:
        raise BenchError("the images are of two sizes, both of which the network takes: name them apart, or --resize")
    return np.stack(images)


def described(shape: Sequence[int]) -> str:
    """An image's size and mode, for people."""
    channels, height, width = shape
    return f"{width} x {height} pixels in {'grey' if channels == 1 else 'colour' if channels == 3 else channels}"


def shown_steps(steps: int) -> list[int]:
    """The time steps, from 0, that a table shows; the last is among them."""
    if steps <= SHOWN_STEPS:
        return list(range(steps))
    return [max(0, steps * part // 4 - 1) for part in range(5)]


def cells(path: Path, seen: Prediction, place: int, steps: Sequence[int]) -> list[str]:
    """One image's row."""
    answer = int(seen.classes[place])
    by_step = seen.by_step[:, place, answer]
    return [
        str(path), seen.labels[place], f"{100 * float(seen.probabilities[place, answer]):.1f} %",
        *(f"{100 * float(by_step[t]):.1f} %" for t in steps[:-1]),
        "-" if seen.spikes is None else f"{int(seen.spikes[place]):,}",
    ]  # fmt: skip


def rows(paths: Sequence[Path], seen: Prediction) -> list[dict[str, Any]]:
    """All that is known of each image."""
    return [
        {
            "image": str(path),
            "label": seen.labels[place],
            "probabilities": dict(zip(seen.names, seen.probabilities[place].tolist(), strict=True)),
            "by_step": [dict(zip(seen.names, step.tolist(), strict=True)) for step in seen.by_step[:, place]],
            "spikes": None if seen.spikes is None else int(seen.spikes[place]),
        }
        for place, path in enumerate(paths)
    ]


def draw(network: SpikingNetwork, image: np.ndarray, label: str, path: Path) -> None:
    """Draw a spike raster: for each layer a mark where a neuron (across) spikes at a time step (down).

    Raises:
        BenchError: the network has no spikes whose times are known.
        EnvironmentFault: the file cannot be written.
    """
    layers = network.raster(image)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 1.1 * len(layers)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(layers), 1, squeeze=False)[:, 0]
    for axis, (name, spikes) in zip(axes, layers.items(), strict=True):
        steps, count = spikes.shape
        times, neurons = spikes.nonzero(as_tuple=True)
        # Thin where neurons are many, or what is sparse would look dense.
        axis.vlines(neurons, times + 0.55, times + 1.45, linewidth=min(1.0, max(0.05, 300 / count)), color="black")
        axis.set_xlim(-0.5, count - 0.5)
        axis.set_ylim(steps + 0.5, 0.5)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.set_title(f"{name}: {int(spikes.sum()):,} spikes of {count:,} neurons", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
    axes[len(axes) // 2].set_ylabel("time step", fontsize=8)
    axes[-1].set_xlabel("neuron", fontsize=8)
    figure.suptitle(f"answer: {label}", fontsize=9)
    with whole(path) as part:
        figure.savefig(part, format="png", dpi=150)
