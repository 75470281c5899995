"""What a network answers to raw images: labels, probabilities after every time step, spikes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data import Batches
from bench.data.splits import fit
from bench.errors import BenchError
from bench.models.spec import Spec
from bench.neurons import SPIKES, Read

if TYPE_CHECKING:
    from bench.neurons import Spiking

NO_ANSWER = "no answer"
"""What a network is said to answer whose neurons have all been silent."""


@dataclass(frozen=True)
class Prediction:
    """The answers to N images.

    Attributes:
        labels: the names of the answers, N of them.
        classes: their numbers, int64 `[N]`.
        probabilities: `[N, classes]`, float32 on the CPU.
        by_step: what they would be if the network were read after 1, 2, ..., T time steps, `[T, N, classes]`.
        spikes: how many spikes each image cost, `[N]`; None for a network without spikes.
        names: of the classes.
    """

    labels: tuple[str, ...]
    classes: Tensor
    probabilities: Tensor
    by_step: Tensor
    spikes: Tensor | None
    names: tuple[str, ...]


class Predicting(nn.Module):
    """The part of a network's frame that answers to raw images.

    Attributes:
        spec: what it was built for.
        about: what it is and where it comes from, of a network that was loaded; empty for others.
    """

    spec: Spec
    about: Mapping[str, Any] = MappingProxyType({})

    if TYPE_CHECKING:
        head: nn.Linear

        def features(self, x: Tensor) -> Tensor: ...
        def logits(self, features: Tensor) -> Tensor: ...
        def read(self, logits_t: Tensor) -> Tensor: ...
        def spiking_layers(self) -> Iterator[tuple[str, Spiking]]: ...
        def forget(self) -> None: ...

    def predict(self, images: Any, batch_size: int = 100) -> Prediction:
        """Classify raw images, in eval mode and at the precision that the network was judged by.

        They are normalized, and padded or resized, as the images of the data set were that it was trained on.

        Args:
            images: uint8 in [0, 255] or floats in [0, 1], as tensor or array; one image or several, `[N, C, H, W]`,
                `[N, H, W, C]` or, of one channel, `[N, H, W]`. Of the size of the data set's images, or of the one
                that the network takes.
            batch_size: images that pass at once.

        Raises:
            BenchError: images of another size or number of channels, or values outside their range.

        Examples:
            >>> import bench, numpy
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), num_classes=3, depth=2, channels=4)
            >>> seen = network.predict(numpy.zeros((2, 8, 8), dtype="uint8"))
            >>> len(seen.labels), tuple(seen.probabilities.shape), tuple(seen.by_step.shape)
            (2, (2, 3), (4, 2, 3))
        """
        pixels, whole, steps, spikes = self.pixels_of(images), list[Tensor](), list[Tensor](), list[Tensor]()
        with self._judging(frozenset({Read.neuron_counts})):
            for x in self._batches(pixels, batch_size):
                self.forget()
                features = self.features(x)
                spikes += [count.cpu() for count in self.spikes_of_images()]
                logits_t = self.head(features)
                read = torch.stack([self.read(logits_t[: t + 1]) for t in range(len(logits_t))])
                whole.append(self.probabilities(self.logits(features)).cpu())
                steps.append(self.probabilities(read).cpu())
        probabilities = torch.cat(whole)
        answers, names = probabilities.argmax(1), self.names(probabilities.shape[1])
        return Prediction(
            tuple(names[answer] for answer in answers.tolist()), answers, probabilities, torch.cat(steps, 1),
            torch.cat(spikes) if spikes else None, names,
        )  # fmt: skip

    def raster(self, image: Any) -> dict[str, Tensor]:
        """When each neuron spiked for one image: layer -> `[T, neurons]` of zeros and ones on the CPU.

        Args:
            image: one, as `predict` takes it.

        Raises:
            BenchError: it is not one image, or the network has no spikes that are known by their time.

        Examples:
            >>> import bench, numpy
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> {name: tuple(spikes.shape) for name, spikes in network.raster(numpy.ones((8, 8))).items()}
            {'spikings.0': (4, 256), 'spikings.1': (4, 64)}
        """
        return self._of_one(image, Read.spikes)

    def potentials(self, image: Any) -> dict[str, Tensor]:
        """The membrane potentials before firing for one image: layer -> `[T, neurons]`, float32, on the CPU.

        Args:
            image: one, as `predict` takes it.

        Raises:
            BenchError: it is not one image, or the network has no potentials that are known by their time.

        Examples:
            >>> import bench, numpy
            >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4)
            >>> image = numpy.ones((8, 8))
            >>> fired = network.potentials(image)["spikings.0"] >= network.spec.neuron.v_threshold
            >>> bool((fired == network.raster(image)["spikings.0"]).all())
            True
        """
        return self._of_one(image, Read.potential)

    def _of_one(self, image: Any, read: Read) -> dict[str, Tensor]:
        """Spikes or potentials of one image: layer -> `[T, neurons]`."""
        pixels = self.pixels_of(image)
        layers = [(name, layer) for name, layer in self.spiking_layers() if layer.is_spiking]
        what = "raster" if read is Read.spikes else "picture of potentials"
        if len(pixels) != 1:
            raise BenchError(f"a {what} is of one image, these are {len(pixels)}")
        if not layers:
            raise BenchError(f"this network has no spikes whose times are known, so there is no {what}")
        with self._judging(SPIKES | {read}):
            for x in self._batches(pixels, 1):
                self.forget()
                self.features(x)
            found = {}
            for name, layer in layers:
                uses = [] if layer.shape is None else [*layer.earlier, layer.use()]
                for place, use in enumerate(uses, 1):
                    kept = use.fired if read is Read.spikes else use.potential
                    if kept is not None:
                        found[f"{name}#{place}" if place > 1 else name] = kept[:, 0].flatten(1).cpu()
            return found

    @contextmanager
    def _judging(self, reads: frozenset[Read]) -> Iterator[None]:
        """While this context is open, passes are those of an evaluation, and the spiking layers keep what is read."""
        was_training, before = self.training, {layer: layer.reads for _, layer in self.spiking_layers()}
        self.eval()
        for layer in before:
            layer.reads = reads
        try:
            with torch.no_grad(), self.autocast(next(self.parameters()).device):
                yield
        finally:
            for layer, own in before.items():
                layer.reads = own
            self.forget()
            self.train(was_training)

    def _batches(self, pixels: Tensor, size: int) -> Iterator[Tensor]:
        """Images `[N, C, H, W]` in 0 to 255 as batches for `features`: normalized, on its device, channels last."""
        spec, device = self.spec, next(self.parameters()).device
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        how: dict[str, Any] = {"mean": spec.mean, "std": spec.std, "device": device, "posterize": spec.posterize}
        for x, _ in Batches(pixels, labels, size, **how):
            yield x.contiguous(memory_format=torch.channels_last)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision that the network was judged by."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the classes, float32, from logits of the same shape."""
        return logits.float().softmax(-1)

    def names(self, count: int) -> tuple[str, ...]:
        """What the network's answers are called."""
        own = self.spec.labels or tuple(map(str, range(self.spec.classes)))
        return (*own, NO_ANSWER)[:count]

    def spikes_of_images(self) -> list[Tensor]:
        """How many spikes each image of the last pass cost, one `[N]`; none of a network without spikes."""
        counts = [
            use.sums[Read.neuron_counts].flatten(1).sum(1)
            for _, layer in self.spiking_layers()
            if layer.is_spiking and layer.shape is not None
            for use in [*layer.earlier, layer.use()]
        ]
        return [torch.stack(counts).sum(0)] if counts else []

    def pixels_of(self, images: Any) -> Tensor:
        """Raw images as `predict` takes them, as `[N, C, H, W]` in 0 to 255 of the size that the network takes."""
        # Arrays of pictures are often read-only, which torch warns of.
        values = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        wanted = self.spec.image_shape
        shapes = [wanted] if self.spec.raw_shape in (None, wanted) else [self.spec.raw_shape, wanted]
        for shape in shapes:
            channels, height, width = shape
            for axes in ((channels, height, width), (height, width, channels), (height, width)):
                if (channels == 1 or len(axes) == 3) and values.shape[-len(axes) :] == axes:
                    if values.ndim not in (len(axes), len(axes) + 1):
                        continue
                    batch = values.reshape(-1, *axes)
                    if axes != shape:
                        batch = batch[:, None] if len(axes) == 2 else batch.permute(0, 3, 1, 2)
                    return fit(_levels(batch), wanted[1] if shape != wanted else None)
        takes = " or ".join(f"{h} x {w} pixels" for _, h, w in shapes)
        raise BenchError(
            f"images of shape {list(values.shape)} do not fit: the network takes {takes} of {wanted[0]} channel(s), "
            f"[N, C, H, W] or [N, H, W, C]"
        )


def _levels(images: Tensor) -> Tensor:
    """Images of one kind or the other in 0 to 255."""
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise BenchError(f"images are of {images.dtype}, and must be uint8 in [0, 255] or floats in [0, 1]")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise BenchError("images of floats must lie in [0, 1], as raw pixels do: they are normalized here")
    return (255 * images.float()).contiguous()
