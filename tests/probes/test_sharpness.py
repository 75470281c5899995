"""Adaptive surrogates: their sharpness by hand, and networks that are as before when they are gone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import ops
from bench.errors import BenchError
from bench.neurons import NeuronConfig, Spiking
from bench.probes._sharpness import AdaptiveATan, sharpened, spike
from bench.probes.adversarial import AdversarialProbe, gradient_of
from tests.probes.test_networks import EVERY, untrained

NETWORKS = ["cnn", "sew", "convmixer", "mlp", "srm", "diet"]


def slope(x: float, alpha: float) -> float:
    """Of (1 / pi) atan(pi / 2 alpha x) + 1 / 2."""
    return alpha / (2 * (1 + (math.pi / 2 * alpha * x) ** 2))


def test_the_surrogate_by_hand() -> None:
    x = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
    fired = spike(x, torch.tensor([1.0, 4.0, 0.5]))
    assert fired.tolist() == [0, 1, 1]
    fired.backward(torch.tensor([1.0, 1.0, 10.0]))
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([slope(-0.5, 1.0), 2.0, 10 * slope(2.0, 0.5)])


def test_without_memory_alpha_is_omega_over_the_potentials_size() -> None:
    """The paper's rule where the mean is over a single pass."""
    adaptive = AdaptiveATan(omega=2.0, relax=1.5, memory=0.0)
    x = torch.tensor([-0.5, 0.25, 4.0])
    assert adaptive.sharpness(x).tolist() == pytest.approx([4.0, 8.0, 0.5], rel=1e-3)
    adaptive.begin()
    assert adaptive.sharpness(2 * x).tolist() == pytest.approx([2.0, 4.0, 0.25], rel=1e-3)


def test_alpha_over_two_passes_of_two_steps_by_hand() -> None:
    adaptive = AdaptiveATan(omega=2.65, relax=1.5, memory=0.9)
    # The means begin at 1.5: 0.9 * 1.5 + 0.1 * (2, 1) = (1.55, 1.45); |x| lies 0.45 from them: deviation 0.045.
    first = adaptive.sharpness(torch.tensor([-2.0, 1.0]))
    assert first.tolist() == pytest.approx([2.65 / (1.55 + 0.0675 + 1e-4), 2.65 / (1.45 + 0.0675 + 1e-4)])
    # The second step knows nothing of the first: its means begin at 0.2 and stay there.
    assert adaptive.sharpness(torch.tensor([0.2, -0.2])).tolist() == pytest.approx([2.65 / 0.2001] * 2)
    adaptive.begin()
    # 0.9 * (1.55, 1.45) + 0.1 * (1, 1) = (1.495, 1.405); deviations 0.9 * 0.045 + 0.1 * (0.495, 0.405) = (0.09, 0.081).
    second = adaptive.sharpness(torch.tensor([-1.0, 1.0]))
    assert second.tolist() == pytest.approx([2.65 / (1.495 + 0.135 + 1e-4), 2.65 / (1.405 + 0.1215 + 1e-4)])
    assert adaptive.sharpness(torch.tensor([0.2, -0.2])).tolist() == pytest.approx([2.65 / 0.2001] * 2)


def test_the_gradient_of_one_layer_by_hand() -> None:
    """IF neurons of threshold 1, two steps of current 0.6 and 0.7: potentials 0.6 and 1.3, so -0.4 and 0.3 from it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Spiking(NeuronConfig(), time_steps=2)

    net, x = Net(), torch.tensor([[0.6], [0.7]], requires_grad=True)
    with sharpened(net, omega=2.0, relax=1.5, memory=0.0) as network:
        network.begin()
        fired = net.layer(x)
        assert fired.flatten().tolist() == [0, 1]
        (gradient,) = torch.autograd.grad(fired[1].sum(), x)
    # alpha = 2 / 0.3 at the second step: both currents are in its potential.
    wanted = slope(0.3, 2.0 / (0.3 + 1e-4))
    assert gradient.flatten().tolist() == pytest.approx([wanted, wanted], rel=1e-4)
    net.layer.forget()
    (before,) = torch.autograd.grad(net.layer(x)[1].sum(), x)
    assert before.flatten().tolist() == pytest.approx([slope(0.3, 2.0)] * 2, rel=1e-4)


def surrogates(model: nn.Module) -> list[object]:
    layers = [module for module in model.modules() if isinstance(module, Spiking)]
    return [getattr(layer.neuron, place, None) for layer in layers for place in ("surrogate_function", "surrogate")]


@pytest.mark.parametrize("model", NETWORKS)
def test_a_network_is_as_before_also_after_an_error(model: str, shared_data: Path) -> None:
    subject = untrained(model, shared_data)
    network = subject.task.model
    images, labels = subject.test_images(10)
    images = images.float()
    with ops.using(ops.Backend.reference):
        plain, backend = gradient_of(subject)(images, labels), ops.asked()
        answers = subject.judge(images, labels)[1]
    before, parts, keys = surrogates(network), list(network.named_modules()), list(subject.task.state_dict())

    def attack() -> None:
        with sharpened(network, 2.65, 1.5, 0.9) as adaptive:
            assert ops.asked() is backend
            assert adaptive.surrogates
            assert all(isinstance(own, AdaptiveATan) for own in surrogates(network) if own is not None)
            adaptive.begin()
            found.append(gradient_of(subject)(images, labels))
            adaptive.begin()
            assert torch.equal(subject.judge(images, labels)[1], answers)
            raise RuntimeError("on purpose")

    found: list[Tensor] = []
    with pytest.raises(RuntimeError, match="on purpose"):
        attack()
    assert ops.asked() is ops.Backend.auto
    assert list(network.named_modules()) == parts
    assert all(own is old for own, old in zip(surrogates(network), before, strict=True))
    assert list(subject.task.state_dict()) == keys
    with ops.using(ops.Backend.reference):
        assert torch.equal(gradient_of(subject)(images, labels), plain)
    assert plain.abs().max() > 0
    assert not torch.allclose(found[0], plain, atol=float(plain.abs().max()) / 100)


def test_the_relu_twin_has_nothing_to_sharpen(shared_data: Path) -> None:
    subject = untrained("cnn", shared_data, "neuron=relu")
    with sharpened(subject.task.model, 2.65, 1.5, 0.9) as adaptive:
        assert adaptive.surrogates == []
    probe = AdversarialProbe(EVERY, eps=[0.1], adaptive_steps=2, images=10, queries=3)
    assert len(probe.measure(subject, lambda line: None).rows) == 7


@pytest.mark.parametrize("attack", ["pgd_assg", "sapgd"])
def test_an_attack_that_fails_puts_the_surrogates_back(
    attack: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = untrained("sew", shared_data)
    before = surrogates(subject.task.model)
    images, labels = subject.test_images(10)

    def broken(features: Tensor) -> Tensor:
        return subject.task.model.head(features.detach().mean(0))

    monkeypatch.setattr(subject.task.model, "logits", broken)
    with pytest.raises(BenchError, match="none reaches the image"):
        getattr(AdversarialProbe(), attack)(subject, images.float(), labels, 0.1, 0)
    assert all(own is old for own, old in zip(surrogates(subject.task.model), before, strict=True))
    assert ops.asked() is ops.Backend.auto
