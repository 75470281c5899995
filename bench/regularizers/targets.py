"""What methods that change the loss share: labels as weights of the classes, cross-entropy at every time step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(y: Tensor, classes: int) -> Tensor:
    """Labels as a row of class weights each.

    Args:
        y: labels `[N]`, or soft labels `[N, classes]`, which stay as they are.
        classes: their number.

    Returns:
        `[N, classes]`, float32, rows that add up to 1.
    """
    if y.is_floating_point():
        return y.float()
    # Not `one_hot`, which looks at the labels from the CPU: no GPU could replay that.
    return torch.zeros(len(y), classes, device=y.device).scatter_(1, y[:, None], 1.0)


def kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(other)) of each row.

    Args:
        logits: `[..., classes]`.
        other: logits that broadcast with them.

    Returns:
        `[...]`, float32 at least.
    """
    p, q = F.log_softmax(logits.float(), -1), F.log_softmax(other.float(), -1)
    return (p.exp() * (p - q)).sum(-1)


def per_step_cross_entropy(logits_t: Tensor, y: Tensor) -> Tensor:
    """Mean over the time steps of the cross-entropy of each step's own logits.

    Args:
        logits_t: `[T, N, classes]`.
        y: labels `[N]`, or soft labels `[N, classes]`.

    Returns:
        Scalar, float32.
    """
    return torch.stack([F.cross_entropy(logits, y) for logits in logits_t.float()]).mean()
