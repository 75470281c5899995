"""Which convolutions the kernels of `depthwise` and `winograd` may stand in for, and how a module calls one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def keeps_size(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a plain k x k convolution, k odd, with stride 1 and zeros around the image that keep its size."""
    return (
        isinstance(conv, nn.Conv2d)
        and type(conv).forward is nn.Conv2d.forward  # a parametrized module is a subclass, but keeps forward
        and "forward" not in vars(conv)
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] % 2 == 1
        and conv.padding in ("same", (conv.kernel_size[0] // 2,) * 2)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
    )


def through(convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor], conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)`, its hooks included, with `convolve(x, weight, bias)` in the place of its own forward."""
    # For one call: the module calls its hooks around it.
    conv.forward = lambda x: convolve(x, conv.weight, conv.bias)  # type: ignore[assignment, method-assign]
    try:
        out: Tensor = conv(x)
    finally:
        del conv.forward
    return out


def compute_dtype(x: Tensor, weight: Tensor, bias: Tensor | None) -> torch.dtype | None:
    """The dtype in which the library would convolve; None if a kernel may not stand in for it.

    That is where the library would refuse or has its own ideas, where a compiler or a FLOP counter is to see the
    convolution, and where a tensor subclass may have no memory to read from.
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return None
    tensors = [tensor for tensor in (x, weight, bias) if tensor is not None]
    if not {*map(type, tensors)} <= {Tensor, nn.Parameter} or len({tensor.device for tensor in tensors}) > 1:
        return None
    if x.device.type not in ("cpu", "cuda") or x.dim() != 4 or x.numel() == 0:
        return None
    dtypes = {tensor.dtype for tensor in tensors}
    if torch.is_autocast_enabled(x.device.type):
        castable = dtypes <= {torch.float32, torch.bfloat16, torch.float16}
        return torch.get_autocast_dtype(x.device.type) if castable else None
    return x.dtype if len(dtypes) == 1 else None
