"""What can be measured of a training step and of the machine: time, saved bytes, FLOPs, traffic, ceilings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

WARM_STEPS = {"cpu": 1, "cuda": 5}  # after the first one
BYTES = 2  # of a bf16 number


def wait(device: str) -> None:
    """Until the device has done what it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device: str) -> float:
    """Seconds, once the device is done."""
    wait(device)
    return time.perf_counter()


def rate(
    step: Callable[[], Any], images: int, seconds: float, device: str, steps: int | None = None, least: int = 2
) -> dict[str, float]:
    """Images per second of a step, warm-up left out.

    Args:
        step: one training step.
        images: in a step.
        seconds: how long to measure, about.
        device: cpu or cuda.
        steps: how many to time instead; None goes by `seconds`.
        least: steps to time at least, by `seconds`.

    Returns:
        images_per_s; first_step_s and warm_step_s, whose difference is what the first step compiled and allocated;
        steps, how many were timed.
    """
    times = [clock(device)]
    for _ in range(1 + WARM_STEPS[device]):
        step()
        times.append(clock(device))
    warm = times[-1] - times[-2]
    steps = max(least, math.ceil(seconds / warm)) if steps is None else steps
    began = clock(device)
    for _ in range(steps):
        step()
    took = clock(device) - began
    return {
        "images_per_s": steps * images / took,
        "first_step_s": times[1] - times[0],
        "warm_step_s": warm,
        "steps": steps,
    }


def forget_peak() -> None:
    """Let this process' peak of resident memory begin anew at what is resident now, where the system has that (Linux).

    What was there before, while data were read, would else hide what a step needs.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def saved_bytes(forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Bytes that one forward pass keeps for backward, each storage once.

    Args:
        forward: returns the loss.
        known: tensors that are there anyway (weights, the batch), not counted.
    """
    skip = {tensor.untyped_storage().data_ptr() for tensor in known}
    # Holds the storages: an address that is free again would be counted once for two tensors.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skip:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in kept.values())


class Traffic(TorchDispatchMode):
    """Counts the numbers that training must move for the convolutions and linear layers of a forward pass.

    An input x is read by the forward pass and by the weight gradient, and was written by what made it; its
    gradient is written, and read. An output y is written, and read by batch norm in the forward and in the backward
    pass; its gradient is written, and read for the weight's and for the input's gradient. So 5 x + 6 y.

    Attributes:
        numbers: 5 x + 6 y, summed over the layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.numbers += 5 * args[0].numel() + 6 * out.numel()
        elif func is torch.ops.aten.addmm.default:
            self.numbers += 5 * args[1].numel() + 6 * out.numel()
        return out


@torch.no_grad()
def work_per_image(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """FLOPs and bytes of training on one image: three times the forward pass' FLOPs, `Traffic` in bf16.

    Args:
        model: put into eval mode for the count.
        image: `[1, C, H, W]`.
    """
    was, flops, traffic = model.training, FlopCounterMode(display=False), Traffic()
    model.eval()
    with flops, traffic:
        model(image)
    model.train(was)
    return 3.0 * flops.get_total_flops(), float(BYTES * traffic.numbers)


def best_seconds(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """The shortest of several timings: a ceiling is what the machine can do."""
    times = []
    for _ in range(repeats + 1):
        began = clock(device)
        work()
        times.append(clock(device) - began)
    return min(times[1:])


@torch.no_grad()
def ceilings(device: str) -> dict[str, float]:
    """What the machine reaches on a large 3x3 convolution and a large copy.

    Returns:
        conv_fp32_flops, conv_bf16_flops (FLOP/s) and copy_bytes (bytes read and written per second).
    """
    images, channels, side = (256 if device == "cuda" else 16), 256, 32
    reached = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(images, channels, side, side, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        seconds = best_seconds(lambda x=x, weight=weight: F.conv2d(x, weight, padding=1), device)  # type: ignore[misc]
        reached[f"conv_{name}_flops"] = 2.0 * images * side * side * channels * channels * 9 / seconds
    source = torch.ones(2**28 if device == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    seconds = best_seconds(lambda: target.copy_(source), device)
    return reached | {"copy_bytes": 2.0 * source.numel() * source.element_size() / seconds}


def roof_images_per_s(flops: float, moved: float, ceiling: dict[str, float]) -> dict[str, float]:
    """The most images per second that the ceilings allow, with bytes moved beside the FLOPs or after them.

    Args:
        flops: per image.
        moved: bytes per image.
        ceiling: of `ceilings`.
    """
    compute = flops / max(ceiling["conv_fp32_flops"], ceiling["conv_bf16_flops"])
    copy = moved / ceiling["copy_bytes"]
    return {"overlapped": 1 / max(compute, copy), "serial": 1 / (compute + copy)}


def fitting_batch(points: tuple[tuple[int, int], tuple[int, int]], total: int) -> int:
    """The largest batch that should fit, on the line through two measured peaks, with 5 % to spare.

    Args:
        points: two pairs of batch size and peak bytes.
        total: bytes of the device.
    """
    (small, low), (large, high) = sorted(points)
    slope = max((high - low) / (large - small), 1.0)
    return max(1, int((0.95 * total - (low - slope * small)) / slope))
