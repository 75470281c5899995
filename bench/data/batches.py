"""Batches made on the device from uint8 images: order, crop, flip, RandAugment, normalization, Mixup."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.seeds import derive, generator

if TYPE_CHECKING:
    from timm.data.auto_augment import RandAugment
    from timm.data.mixup import Mixup


@dataclass(frozen=True)
class Augment:
    """What a training batch goes through, in this order: randaugment, crop, flip, (normalize,) mixup.

    Attributes:
        crop: pixels of zeros to add on each side before a random crop to the image's size.
        flip: whether to mirror left and right with probability 1/2.
        randaugment: timm's transform of PIL images, on the CPU; None is off.
        mixup: timm's Mixup, of an even number of images; None is off.
    """

    crop: int = 0
    flip: bool = False
    randaugment: RandAugment | None = None
    mixup: Mixup | None = None


class Batches:
    """One split of a data set, as an iterable of batches that Lightning takes for a data loader.

    Without `augment`: in order, unchanged but for normalization, the last partial batch kept. With it:
    shuffled anew each epoch, augmented, the last partial batch dropped. An epoch's batches depend on (seed, epoch)
    and on nothing else: not on the epochs before it, nor on the process, nor, since all is drawn on
    the CPU, on the device.

    Yields `(x, y)`: x float32 [N, C, H, W] on the device; y int64 [N], or float32 [N, classes] under Mixup.

    Args:
        images: uint8 [M, C, H, W]; moved to the device once (RandAugment needs them on the CPU).
        labels: int64 [M].
        batch_size: images in a batch; fewer images than that make one smaller batch.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        device: where batches are made.
        augment: makes it a training split.
        seed: the run's seed.
        posterize: leading bits of each pixel that are kept, after augmentation; None keeps all.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        seed: int = 0,
        posterize: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = min(batch_size, len(images))
        self.augment = augment
        self.seed = seed
        self.posterize = posterize
        self.epoch = 0
        self._share = (0, 1)
        # On a GPU a kernel's launch costs more than its work on one batch: augment many batches at a time.
        self._stride = self.batch_size * (max(1, 2048 // batch_size) if self.device.type == "cuda" else 1)
        self._images = images if augment and augment.randaugment else images.to(self.device)
        self._labels = labels.to(self.device)
        # (u / 255 - mean) / std in one multiplication and one addition.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) * 255 * scale
        self._scale = scale.float().view(-1, 1, 1).to(self.device)
        self._shift = shift.float().view(-1, 1, 1).to(self.device)

    batch_sampler = None  # Lightning looks for one wherever there is a sampler

    @property
    def images(self) -> int:
        """The number of images in the split."""
        return len(self._images)

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        """The split as it is kept: images uint8 [M, C, H, W], neither normalized nor augmented; labels int64 [M]."""
        return self._images, self._labels

    @property
    def sampler(self) -> Batches:
        """Itself: Lightning calls `sampler.set_epoch(epoch)` before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration gives."""
        self.epoch = epoch

    def take_share(self, rank: int, ranks: int) -> None:
        """Give only the rank's part of each training batch: the parts of all ranks, in their order, are the batch.

        Raises:
            BenchError: the batch has no `ranks` equal parts.
        """
        if self.batch_size % ranks:
            raise BenchError(f"a batch of {self.batch_size} images is not to be shared equally by {ranks} devices")
        self._share = (rank, ranks)

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(self.images, self.batch_size)
        return whole if self.augment else whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._evaluation() if self.augment is None else self._training(self.augment, self.epoch)

    def sample(self, count: int, seed: int) -> Tensor:
        """Images drawn at random, normalized and not augmented: float32 [min(count, M), C, H, W]."""
        index = torch.randperm(self.images, generator=generator("cpu", seed, "sample"))[:count]
        return self._normalize(self._images[index.to(self._images.device)].to(self.device))

    def _normalize(self, images: Tensor) -> Tensor:
        return torch.addcmul(self._shift, posterized(images.float(), self.posterize), self._scale)

    def _evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(
            self._images.split(self.batch_size), self._labels.split(self.batch_size), strict=True
        ):
            yield self._normalize(images), labels

    def _training(self, augment: Augment, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self) * self.batch_size
        order = torch.randperm(self.images, generator=generator("cpu", self.seed, "order", epoch))[:count]
        order = order.to(self._images.device)
        labels = self._labels[order.to(self.device)]
        draw = generator("cpu", self.seed, "augment", epoch)
        offsets = torch.randint(2 * augment.crop + 1, (2, count), generator=draw).to(self.device)
        flips = (torch.rand(count, generator=draw) < 0.5).to(self.device) if augment.flip else None
        rank, ranks = self._share
        own = slice(rank * self.batch_size // ranks, (rank + 1) * self.batch_size // ranks)
        places, size, stride = torch.arange(count), self.batch_size, self._stride
        # Mixup needs the whole batch: it pairs images across it.
        if ranks > 1 and augment.mixup is None:
            places = places.view(-1, size)[:, own].flatten()
            size, stride = size // ranks, stride // ranks
            order, labels = order[places.to(order.device)], labels[places.to(self.device)]
            offsets = offsets[:, places.to(self.device)]
            flips = None if flips is None else flips[places.to(self.device)]
        for start in range(0, len(places), stride):
            part = slice(start, min(start + stride, len(places)))
            images = self._images.index_select(0, order[part])
            if augment.randaugment is not None:
                seeds = [derive(self.seed, "augment", epoch, place) for place in places[part].tolist()]
                images = rand_augment(images, augment.randaugment, seeds).to(self.device)
            images = crop_flip(images, augment.crop, offsets[:, part], None if flips is None else flips[part])
            images = self._normalize(images)
            for first in range(0, len(images), size):
                x, y = images[first : first + size], labels[start + first :][:size]
                if augment.mixup is not None:
                    with global_seed(derive(self.seed, "mixup", epoch, (start + first) // size)):
                        x, y = augment.mixup(x, y)
                    x, y = x[own], y[own]
                yield x, y


class Chunks:
    """An epoch's training batches in lists, so that what a trainer does around a step is done once for several.

    Yields lists of `size` batches, the last one shorter where the count does not divide.

    Args:
        batches: of the training split.
        limit: use only so many of them; None is all.
        size: batches in a list.
    """

    batch_sampler = None  # Lightning looks for one wherever there is a sampler

    def __init__(self, batches: Batches, limit: int | None = None, size: int = 8) -> None:
        self.batches, self.size = batches, size
        self.steps = len(batches) if limit is None else min(limit, len(batches))

    @property
    def sampler(self) -> Batches:
        """What Lightning tells the epoch."""
        return self.batches

    def __len__(self) -> int:
        """Lists in an epoch; `steps` is the number of batches."""
        return -(-self.steps // self.size)

    def __iter__(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        left = islice(self.batches, self.steps)
        while chunk := list(islice(left, self.size)):
            yield chunk


def crop_flip(images: Tensor, crop: int, offsets: Tensor, flips: Tensor | None) -> Tensor:
    """Crop each image out of a frame of zeros, then mirror some, all in one gather.

    Args:
        images: [N, C, H, W].
        crop: width of the frame in pixels.
        offsets: int64 [2, N], the top and left corner of each crop, in [0, 2 crop].
        flips: bool [N], or None to mirror none.

    Returns:
        [N, C, H, W] of the same type.
    """
    if crop == 0 and flips is None:
        return images
    n, c, h, w = images.shape
    rows = offsets[0, :, None] + torch.arange(h, device=images.device)
    columns = torch.arange(w, device=images.device)
    if flips is not None:
        columns = torch.where(flips[:, None], w - 1 - columns, columns)
    columns = offsets[1, :, None] + columns
    pixel = rows[:, :, None] * (w + 2 * crop) + columns[:, None, :]
    framed = F.pad(images, (crop,) * 4) if crop else images
    return framed.reshape(n, c, -1).gather(2, pixel.view(n, 1, -1).expand(n, c, h * w)).view(n, c, h, w)


def posterized(images: Tensor, bits: int | None) -> Tensor:
    """Keep the leading bits of each pixel: round it down to a multiple of 2^(8 - bits).

    A gradient passes straight through.

    Args:
        images: float, pixels in 0 to 255, whole numbers or not.
        bits: from 1 to 8; None changes nothing.

    Returns:
        The same shape.
    """
    return images if bits is None else images - images.detach().remainder(2 ** (8 - bits))


def rand_augment(images: Tensor, transform: RandAugment, seeds: Sequence[int]) -> Tensor:
    """timm's RandAugment of uint8 [N, C, H, W] on the CPU, each image with a seed of its own."""
    from PIL import Image

    out = []
    for pixels, seed in zip(images.permute(0, 2, 3, 1).numpy(), seeds, strict=True):
        with global_seed(seed):
            out.append(np.array(transform(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels))))
    return torch.from_numpy(np.stack(out)).view(len(out), *images.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators, which timm draws from, and put them back after."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
