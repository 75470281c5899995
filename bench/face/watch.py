"""What forward passes of a network did and cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from bench.activity import OpCounter, RateMeter, activity_of
from bench.errors import BenchError
from bench.face.foreign import Foreign
from bench.face.handles import attached_to
from bench.models.base import SpikingNetwork

NO_PASS = "no forward pass was made within bench.activity: call the network in it"


class Watched:
    """Spikes and operations of the passes since it was made, over all their images.

    Attributes:
        images: how many.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        self.model = model
        self.meter = RateMeter(per_neuron=True)
        self.counter: OpCounter = ForeignCounter(model) if isinstance(model, Foreign) else OpCounter(model)

    @property
    def images(self) -> int:
        return self.counter.images

    @property
    def rates(self) -> dict[str, float]:
        """Spike rate of each layer: spikes / (neurons x time steps x images)."""
        return self._seen().rates()

    @property
    def rate(self) -> float:
        """That of all neurons together."""
        return self._seen().global_rate()

    @property
    def layers(self) -> list[dict[str, Any]]:
        """A row a layer: `name`, `neurons`, `spike_rate`, and the shares of neurons that were `dead` or `saturated`."""
        return self._seen().layers()

    @property
    def operations(self) -> dict[str, float | None]:
        """What an image cost: `synops_per_image`, `synops_nonbinary_per_image`, `macs_per_image`, `energy_uj`, as in
        records (`bench.energy` has the rule)."""
        if not self.images:
            raise BenchError(NO_PASS)
        return self.counter.per_image()

    @property
    def synops(self) -> float | None:
        """SynOps an image."""
        return self.operations["synops_per_image"]

    @property
    def energy_uj(self) -> float | None:
        """Microjoules an image."""
        return self.operations["energy_uj"]

    def _seen(self) -> RateMeter:
        if not self.meter.images:
            raise BenchError("this network has no spikes to count" if self.images else NO_PASS)
        return self.meter


class ForeignCounter(OpCounter):
    """Counts the operations of a plain network, whose layers may see `[T, N, ...]`."""

    def __init__(self, model: Foreign) -> None:
        self.spiking, self.model = True, model
        self.synops, self.nonbinary, self.macs, self.images = 0.0, 0.0, 0.0, 0
        self._fan = {}

    @contextmanager
    def attached(self) -> Iterator[OpCounter]:
        network: nn.Module = self.model.network  # type: ignore[assignment]
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        handles = [module.register_forward_pre_hook(self._before) for module in layers]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        whole = 3 if isinstance(module, nn.Conv2d) else 1
        self._count(module, args[0].flatten(0, -whole - 1))


@contextmanager
def activity(network: nn.Module) -> Iterator[Watched]:
    """Watch the forward passes of a network: spike rates by layer, SynOps, energy.

    Args:
        network: of `bench.create_model` or `bench.load`, or a plain one of SpikingJelly's neurons in multi-step mode.

    Yields:
        What is filled as passes are made, and can be read then and after.

    Raises:
        BenchError: it has no spiking layers, or one that can neither be reset nor counted.

    Examples:
        >>> import bench, torch
        >>> network = bench.create_model("cnn", image_shape=(1, 8, 8), depth=2, channels=4).eval()
        >>> with bench.activity(network) as seen:
        ...     logits = network(torch.ones(1, 1, 8, 8))
        >>> list(seen.rates)
        ['spikings.0', 'spikings.1']
        >>> 0 <= seen.rate <= 1 and seen.synops >= 0
        True
    """
    model = attached_to(network).model
    watched = Watched(model)
    before = [(layer, layer.reads) for _, layer in model.spiking_layers()]
    if not before:
        raise BenchError(f"a {type(network).__name__} has no spiking layers to watch")
    features = model.features

    def counted(x: Tensor) -> Tensor:
        made = features(x)
        if watched.counter.spiking:
            watched.meter.update(activity_of(model))
        watched.counter.batch(made)
        return made

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        watched.meter.update(activity_of(model))
        watched.counter.images = watched.meter.images

    hook = network.register_forward_hook(after) if isinstance(model, Foreign) else None
    try:
        for layer, reads in before:
            layer.reads = reads | watched.meter.reads
        if hook is None:
            # The head is counted from the features, which no module gives.
            model.__dict__["features"] = counted
        with watched.counter.attached():
            yield watched
    finally:
        for layer, reads in before:
            layer.reads = reads
        if hook is None:
            del model.__dict__["features"]
        else:
            hook.remove()
