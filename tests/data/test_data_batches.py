"""Order, augmentation and normalization of batches, against loops over single images."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from bench.data.batches import Augment, Batches, crop_flip, global_seed, posterized, rand_augment
from bench.errors import BenchError
from bench.seeds import generator

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def make(n: int = 23, c: int = 3, h: int = 8, w: int = 8) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, c, h, w), dtype=torch.uint8, generator=draw), torch.arange(n)


def train(augment: Augment | None = None, n: int = 23, size: int = 5, seed: int = 1, c: int = 3) -> Batches:
    augment = augment or Augment(crop=2, flip=True)
    return Batches(*make(n, c), size, mean=MEAN[:c], std=STD[:c], augment=augment, seed=seed)


def collect(batches: Batches, epoch: int) -> tuple[Tensor, Tensor]:
    batches.sampler.set_epoch(epoch)
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def test_crop_and_flip_by_hand() -> None:
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    # Framed by zeros, the corner (0, 1) of the 2 x 2 window sees the top row of the frame and the image's first row.
    assert crop_flip(image, 1, torch.tensor([[0], [1]]), None).tolist() == [[[[0, 0], [1, 2]]]]
    assert crop_flip(image, 1, torch.tensor([[0], [1]]), torch.tensor([True])).tolist() == [[[[0, 0], [2, 1]]]]
    assert crop_flip(image, 1, torch.tensor([[2], [2]]), torch.tensor([False])).tolist() == [[[[4, 0], [0, 0]]]]
    assert crop_flip(image, 0, torch.zeros(2, 1, dtype=torch.int64), torch.tensor([True])).tolist() == [
        [[[2, 1], [4, 3]]]
    ]


def test_posterize_by_hand() -> None:
    pixels = torch.tensor([0.0, 3, 4, 7, 8, 127, 251, 252, 255])
    assert posterized(pixels, 6).tolist() == [0, 0, 4, 4, 8, 124, 248, 252, 252]
    assert posterized(torch.tensor([3.99, 4.01, 63.4]), 6).tolist() == [0, 4, 60]
    assert posterized(pixels, 8).tolist() == pixels.tolist()
    assert posterized(pixels, None) is pixels


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_like_pillow(bits: int) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.posterize(Image.fromarray(pixels), bits))
    images = torch.from_numpy(pixels)[None, None]
    x, _ = next(iter(Batches(images, torch.zeros(1), 1, mean=[0.0], std=[1.0], posterize=bits)))
    assert np.array_equal((255 * x[0, 0]).round().numpy(), expected)


def test_gradients_pass_a_posterized_image() -> None:
    images = torch.rand(2, 1, 3, 3).mul(255).requires_grad_()
    x, _ = next(iter(Batches(images, torch.zeros(2), 2, mean=[0.5], std=[0.25], posterize=3)))
    (gradient,) = torch.autograd.grad(x.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, 1 / (255 * 0.25)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(2, 9), st.integers(2, 9), st.integers(0, 4), st.data())
def test_crop_and_flip_like_torchvision(n: int, c: int, h: int, w: int, crop: int, data: st.DataObject) -> None:
    images, _ = make(n, c, h, w)
    offsets = torch.tensor([[data.draw(st.integers(0, 2 * crop)) for _ in range(n)] for _ in range(2)])
    flips = torch.tensor([data.draw(st.booleans()) for _ in range(n)])
    expected = []
    for image, top, left, flip in zip(images, *offsets.tolist(), flips, strict=True):
        image = tvf.crop(tvf.pad(image, [crop]), top, left, h, w)
        expected.append(tvf.horizontal_flip(image) if flip else image)
    assert torch.equal(crop_flip(images, crop, offsets, flips), torch.stack(expected))


def test_epoch_like_a_loop_over_images() -> None:
    images, _ = make()
    x, y = collect(train(), 3)
    order = torch.randperm(23, generator=generator("cpu", 1, "order", 3))[:20]
    draw = generator("cpu", 1, "augment", 3)
    tops, lefts = torch.randint(5, (2, 20), generator=draw).tolist()
    flips = torch.rand(20, generator=draw) < 0.5
    assert torch.equal(y, order)
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    for i in range(20):
        image = np.pad(images[order[i]].numpy(), ((0, 0), (2, 2), (2, 2)))
        image = image[:, tops[i] : tops[i] + 8, lefts[i] : lefts[i] + 8]
        image = image[:, :, ::-1].copy() if flips[i] else image
        torch.testing.assert_close(x[i], normalize(torch.from_numpy(image)), rtol=1e-5, atol=1e-6)


def test_evaluation_keeps_order_and_the_last_partial_batch() -> None:
    images, labels = make()
    batches = Batches(images, labels, 5, mean=MEAN, std=STD)
    sizes = [len(y) for _, y in batches]
    assert sizes == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    assert batches.images == 23
    x, y = collect(batches, 0)
    assert torch.equal(y, labels)
    expected = v2.functional.normalize(images.float() / 255, MEAN, STD)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-6)


def test_training_drops_the_last_partial_batch_but_never_all() -> None:
    assert [len(y) for _, y in train()] == [5, 5, 5, 5]
    assert len(train()) == 4
    few = train(n=3, size=50)
    assert [len(y) for _, y in few] == [3]
    assert len(few) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 200))
def test_an_epoch_depends_on_seed_and_epoch_only(seed: int, epoch: int) -> None:
    warm = train(seed=seed)
    collect(warm, 0)  # another epoch before, and an iteration left unfinished
    next(iter(warm))
    x, y = collect(warm, epoch)
    again = collect(train(seed=seed), epoch)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert not torch.equal(y, collect(train(seed=seed), epoch + 1)[1])
    assert not torch.equal(y, collect(train(seed=seed + 1), epoch)[1])


def test_every_image_once_an_epoch() -> None:
    _, y = collect(train(n=20), 5)
    assert sorted(y.tolist()) == list(range(20))


def test_augmenting_many_batches_at_a_time_changes_nothing() -> None:
    for augment in (None, Augment(mixup=Mixup(0.5, label_smoothing=0, num_classes=24))):
        one, many = train(augment, n=24, size=4), train(augment, n=24, size=4)
        many._stride = 5 * many.batch_size  # as on a GPU; 6 batches, so that the last part is short
        for a, b in zip(collect(one, 2), collect(many, 2), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_the_shares_of_all_devices_are_the_batch(ranks: int, stride: int) -> None:
    for augment in (Augment(2, True), Augment(), all_augmentations()):
        whole = train(augment, n=40, size=6)
        parts = [train(augment, n=40, size=6) for _ in range(ranks)]
        for rank, part in enumerate(parts):
            part.take_share(rank, ranks)
            part._stride = stride * part.batch_size  # as on a GPU
        for batches in (whole, *parts):
            batches.set_epoch(2)
        assert [len(part) for part in parts] == [len(whole)] * ranks == [6] * ranks
        for (x, y), *shares in zip(whole, *parts, strict=True):
            assert [len(share[1]) for share in shares] == [6 // ranks] * ranks
            assert torch.equal(torch.cat([share[0] for share in shares]), x)
            assert torch.equal(torch.cat([share[1] for share in shares]), y)


def test_a_batch_that_has_no_equal_shares() -> None:
    few = train(n=3, size=50)
    few.take_share(2, 3)
    with pytest.raises(BenchError, match="a batch of 3 images is not to be shared equally by 2 devices"):
        few.take_share(0, 2)


def test_same_batches_in_another_process() -> None:
    code = """
import hashlib, sys, test_data_batches as t
x, y = t.collect(t.train(t.all_augmentations(), n=24, size=4), 7)
print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())
"""
    import hashlib
    from pathlib import Path

    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})" + code
    x, y = collect(train(all_augmentations(), n=24, size=4), 7)
    expected = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == expected


def all_augmentations() -> Augment:
    transform = rand_augment_transform("rand-m9-n2", {"translate_const": 3, "img_mean": (128, 128, 128)})
    return Augment(2, True, transform, Mixup(0.5, label_smoothing=0, num_classes=40))


def test_mixup_is_timms_and_leaves_the_global_generators_alone() -> None:
    mixup = Mixup(mixup_alpha=0.5, label_smoothing=0.0, num_classes=24)
    mixed, plain = train(Augment(mixup=mixup), n=24, size=4), train(Augment(), n=24, size=4)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    mixed.set_epoch(1)
    plain.set_epoch(1)
    shares = set()
    for (x, y), (x0, y0) in zip(mixed, plain, strict=True):
        assert y.shape == (4, 24)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.sum(1), torch.ones(4))
        share = y[0, y0[0]].item()  # the images are 24 classes of one: this is lambda
        torch.testing.assert_close(x, share * x0 + (1 - share) * x0.flip(0), rtol=1e-4, atol=1e-5)
        shares.add(share)
    assert len(shares) == 6  # drawn anew for each step
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_is_timms_image_by_image(channels: int) -> None:
    from PIL import Image

    images, _ = make(12, channels, 16, 16)
    fill = (120, 130, 140) if channels == 3 else 120
    transform = rand_augment_transform("rand-m9-n2", {"translate_const": 7, "img_mean": fill})
    seeds = list(range(100, 112))
    out = rand_augment(images, transform, seeds)
    assert out.dtype == torch.uint8
    assert out.shape == images.shape
    for i, seed in enumerate(seeds):
        picture = Image.fromarray(images[i].permute(1, 2, 0).squeeze(-1).numpy())
        with global_seed(seed):
            expected = torch.from_numpy(np.array(transform(picture))).view(16, 16, channels).permute(2, 0, 1)
        assert torch.equal(out[i], expected)
    assert not torch.equal(out, images)


@pytest.mark.filterwarnings("default")  # Lightning and what it imports warn about each other's versions
def test_lightning_takes_them_and_sets_the_epoch() -> None:
    import lightning

    seen: list[Tensor] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            seen.append(batch[1])
            return self.weight * batch[0].sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.0)

    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), train_dataloaders=train())
    assert torch.equal(torch.cat(seen), torch.cat([collect(train(), epoch)[1] for epoch in (0, 1)]))


def test_a_batch_costs_well_under_a_millisecond() -> None:
    """On one thread, and the best of 100: on a busy machine, threads that wait for each other cost up to 50 ms."""
    batches = Batches(*make(5000, 3, 32, 32), 50, mean=MEAN, std=STD, augment=Augment(4, True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times, last = [], time.perf_counter()
    for _ in batches:
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    torch.set_num_threads(threads)
    assert min(times) < 1e-3  # 0.22 ms on Zen 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_batches() -> None:
    images, labels = make(5000, 3, 32, 32)
    augment = Augment(4, True)
    cpu, gpu = (
        Batches(images, labels, 50, mean=MEAN, std=STD, augment=augment, device=device) for device in ("cpu", "cuda")
    )
    for (x, y), (gx, gy) in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(gx.cpu(), x)
        assert torch.equal(gy.cpu(), y)
