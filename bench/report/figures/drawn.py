"""A figure as a value: what it shows, a hash of that, and the SVG and PNG files that carry the hash."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.figures.look import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its files, without ending.
        caption: one or two sentences.
        source: what is drawn, as numbers; its hash is in both files.
        draw: draws it.
    """

    name: str
    caption: str
    source: Any
    draw: Callable[[], Figure]

    @property
    def digest(self) -> str:
        """Hash of what is drawn, to 6 digits: the same from the same records on any machine."""
        return hashlib.sha256(json.dumps(_rounded([self.name, self.source])).encode()).hexdigest()

    def files(self, png: bool = True, there: Path | None = None) -> Iterator[tuple[str, bytes]]:
        """The SVG and the PNG: file name and content.

        Args:
            png: draw it; else its content is only what `source_of` would read off it.
            there: the folder of files from before: where the SVG comes out as it is there, the PNG beside it shows the
                same and is not drawn.
        """
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        note, renderer = f"source sha256:{self.digest}", f"snn-bench, Matplotlib {matplotlib.__version__}"
        with style():
            figure = self.draw()
            svg, picture = io.BytesIO(), io.BytesIO()
            metadata: dict[str, Any] = {"Date": None, "Creator": renderer, "Description": note}
            pixels = figure.canvas
            assert isinstance(pixels, FigureCanvasAgg)
            # Not by `savefig`, which draws a figure twice: the first time only to lay it out, which drawing does too.
            figure.dpi = matplotlib.rcParams["savefig.dpi"]  # of the images within
            FigureCanvasSVG(figure).print_svg(svg, metadata=metadata)
            figure.set_canvas(pixels)
            # Matplotlib writes six decimals of a point, and ends some lines with spaces, which git complains of.
            text = re.sub(rb"(\d\.\d\d)\d+", rb"\1", re.sub(rb" +\n", b"\n", svg.getvalue()))
            yield f"{self.name}.svg", text
            old = None if there is None or not png else self._as_before(there, text, renderer)
            if png and old is None:
                metadata = {"Software": renderer, "Description": note}
                figure.dpi = matplotlib.rcParams["savefig.dpi"]  # which an SVG leaves at its own
                pixels.print_png(picture, metadata=metadata, pil_kwargs={"optimize": True})
            yield f"{self.name}.png", old or picture.getvalue() or f"{note} {renderer}".encode()

    def _as_before(self, folder: Path, svg: bytes, renderer: str) -> bytes | None:
        """The PNG in a folder, where it is of this figure as this Matplotlib draws it; else None."""
        paths = folder / f"{self.name}.svg", folder / f"{self.name}.png"
        if not all(path.is_file() for path in paths) or paths[0].read_bytes() != svg:
            return None
        png = paths[1].read_bytes()
        return png if source_of(png) == (self.digest, renderer) else None


def source_of(content: bytes) -> tuple[str, str] | None:
    """Hash of what a figure or the page shows, and what drew it; None if it is neither."""
    digest = re.search(rb"source sha256:([0-9a-f]{64})", content)
    renderer = re.search(rb"snn-bench, (?:Matplotlib|Altair) [\w.+]+", content)
    return None if digest is None or renderer is None else (digest[1].decode(), renderer[0].decode())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
