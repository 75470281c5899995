"""Weight decay against its closed form and against an explicit loss."""

from __future__ import annotations

import torch

from bench.regularizers.weight_decay import WeightDecay


def test_zero_gradient_steps_shrink_every_parameter_alike(net) -> None:
    # Without a gradient, both optimizers' first step is w <- w (1 - lr weight).
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        model = net()
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
        step = optimizer(WeightDecay(weight=0.1).param_groups(model), lr=0.5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step.step()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, before[key] * (1 - 0.5 * 0.1))


def test_sgd_is_half_of_eq_2_1s_factor_with_the_whole_square_norm(net, bench) -> None:
    # lambda / 2 ||w||^2 has the gradient lambda w; eq. 2.1 as printed, lambda ||w||^2, has twice that.
    decayed = bench(net(), [WeightDecay(weight=0.02)]).train(3)
    plain = bench(net(), [])
    for step in range(3):
        plain.optimizer.zero_grad()
        loss = plain.forward(step) + 0.02 / 2 * sum(p.square().sum() for p in plain.model.parameters())
        loss.backward()
        plain.optimizer.step()
    for p, q in zip(decayed.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_covers_all_parameters_or_only_weights(net) -> None:
    for neuron in ("if", "plif"):
        model = net(neuron=neuron)
        (group,) = WeightDecay().param_groups(model)
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
        (group,) = WeightDecay(only_weights=True).param_groups(model)
        weights = [model.convs[0].conv.weight, model.convs[1].conv.weight, model.head.weight]
        assert [id(p) for p in group["params"]] == [id(p) for p in weights]
