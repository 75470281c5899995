"""The network of Diehl & Cook 2015 and antonov2024, trained by local learning rules instead of gradients."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.errors import BenchError
from bench.local.constants import ANTONOV, DIEHL_COOK, TRACE, Constants
from bench.local.network import ARRAYS, MILLISECONDS, Mode, Network, Response, State, check_delays, steps, wire
from bench.local.readout import NO_ANSWER, answers, vote
from bench.local.simulate import simulate
from bench.local.spikes import check_rate, poisson
from bench.models.base import KNOBS, Spec, SpikingNetwork
from bench.ranges import Numbers
from bench.registry import MODELS
from bench.seeds import derive

BUFFERS = tuple(name for name in ARRAYS if name != "w")
"""The arrays of a state that the network holds as buffers; the weights are a layer's."""


class Rule(StrEnum):
    """`stdp_allltd`: supervised, STDP for the shown class' neurons, all-LTD for the others; `stdp`: unsupervised."""

    stdp_allltd = "stdp_allltd"
    stdp = "stdp"


class Update(StrEnum):
    """The unsupervised rule: `triplet`, of Diehl & Cook's script, or `trace`, gutekunst's eq. 1."""

    triplet = "triplet"
    trace = "trace"


MOST_REPEATS = 20
"""How often an image that hardly excites anything is shown again, brighter each time."""


@MODELS.register("diehl_cook")
class DiehlCook(SpikingNetwork):
    """Poisson inputs - plastic synapses - excitatory neurons with an adaptive threshold, which inhibit each other.

    Each pixel is an input that fires at random with a rate in proportion to its intensity. Every excitatory neuron
    sees all of them, and has an inhibitory neuron that stops all others. The input weights learn by spike timing alone,
    one image after the other, in steps of Euler's method and in float64 on the CPU. What tells the classes apart is
    which neurons fire: those of a class by construction (`stdp_allltd`), or by the label that fits a neuron's answers
    best (`stdp`). `reg=uselose` is the paper's decay of unused weights: `form=effective` at the end of the
    training, as the authors' notebooks computed it, `form=literal` at every input spike, as eq. 5 and their code read.

    Source: antonov2024 (Antonov & Sukhov), eqs. 3-5, and its notebooks; Diehl & Cook 2015 (Front. Comput. Neurosci.
    9:99), with gutekunst's eqs. 1-3. For images of other sizes than 28 x 28 the input weights are scaled.

    Args:
        spec: image shape of one channel, classes.
        rule: what is learned, and whose constants: antonov2024's or Diehl & Cook's.
        update: how, under `stdp`.
        neurons: excitatory neurons, and as many inhibitory ones; null is 10 a class, or 400 under `stdp`.
        dt: time step, ms; null is the paper's, 0.1 or 0.5.
        rate: of a white pixel, Hz.
        present: how long an image is shown, ms.
        pause: without input after it, ms; no shorter than the longest delay.
        delay_in: input synapses' delays are uniform from 0 to this, ms; null is the paper's, 0 or 10.
        delay_ei: likewise, excitatory to inhibitory neurons: 10 or 0.
        delay_ie: likewise, inhibitory to excitatory neurons: 5 or 0.
        assign: under `stdp`, how many of an epoch's last training images give the neurons their labels.

    Raises:
        BenchError: images of several channels, a neuron other than `lif`, a negative delay, a rate that dt cannot
            carry, neurons that the classes cannot share equally, or a number out of its range.
    """

    learning = "local"
    labels: Tensor
    step: Tensor
    assigned_at: Tensor
    flushed_at: Tensor
    evaluation: State | None
    answered: list[Response]

    def __init__(
        self,
        spec: Spec,
        rule: Rule = Rule.stdp_allltd,
        update: Update = Update.triplet,
        neurons: int | None = None,
        dt: float | None = None,
        rate: float = 63.75,
        present: float = 350.0,
        pause: float = 150.0,
        delay_in: float | None = None,
        delay_ei: float | None = None,
        delay_ie: float | None = None,
        assign: int = 10000,
    ) -> None:
        super().__init__(spec)
        self.rule, self.assign = Rule(rule), assign
        paper = ANTONOV if self.supervised else DIEHL_COOK
        if not self.supervised and Update(update) is Update.trace:
            paper = replace(paper, plasticity=TRACE)
        given = {"dt": dt, "delay_in": delay_in, "delay_ei": delay_ei, "delay_ie": delay_ie}
        chosen: Any = {name: value for name, value in given.items() if value is not None}
        constants = replace(paper, rate=rate, present=present, pause=pause, **chosen)
        count = neurons if neurons is not None else 10 * spec.classes if self.supervised else 400
        self._check(constants, count)
        height, width = spec.image_shape[1:]
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        self.network = Network(constants, wire(constants, height * width, count, rng))
        state = self.network.fresh(rng)
        # A linear layer [neurons, inputs] to those who look for the weights of pixels; a step wants them by input.
        self.synapses = nn.Linear(height * width, count, bias=False, device="meta")
        self.synapses.weight = nn.Parameter(torch.from_numpy(state.w).T, requires_grad=False)
        for name in BUFFERS:
            self.register_buffer(name, torch.from_numpy(getattr(state, name)))
        pools = np.repeat(np.arange(spec.classes), count // spec.classes)
        self.register_buffer("labels", torch.from_numpy(pools if self.supervised else np.full(count, NO_ANSWER)))
        for name in ("step", "assigned_at", "flushed_at"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.head = nn.Identity()  # type: ignore[assignment]
        self.time_steps = steps(constants.present, constants.dt)
        self.period = self.time_steps + steps(constants.pause, constants.dt)
        self.evaluation, self.answered = None, []
        self.reference = False
        self.synops = 0.0
        self.seed, self.unflushed = 0, 0.0

    @property
    def supervised(self) -> bool:
        """Whether the classes have their neurons from the start."""
        return self.rule is Rule.stdp_allltd

    def _check(self, c: Constants, neurons: int) -> None:
        channels, classes = self.spec.image_shape[0], self.spec.classes
        if channels != 1:
            raise BenchError(f"model=diehl_cook takes images of one channel, these have {channels}")
        if self.spec.neuron.name != "lif":
            raise BenchError(f"neuron.name is '{self.spec.neuron.name}', but model=diehl_cook has lif of its own kind")
        Numbers("model.", finite=True).above(0, dt=c.dt, rate=c.rate, present=c.present)
        KNOBS.at_least(1, assign=self.assign)
        try:
            check_rate(c.rate, c.dt)
        except BenchError as error:
            raise BenchError(f"model.rate: {error}") from error
        check_delays(c)
        longest = max(c.delay_in, c.delay_ei, c.delay_ie)
        MILLISECONDS.check("pause", c.pause, longest <= c.pause, f"be at least {longest:g}, the longest delay")
        if self.supervised and neurons % classes:
            fits = [k * classes for k in (neurons // classes, neurons // classes + 1) if k]
            raise BenchError(
                f"model.neurons={neurons} cannot be shared equally by {classes} classes; "
                f"{' or '.join(map(str, fits))} can"
            )

    def learn_at(self, rate: float) -> None:
        """Scale every weight change by `rate`."""
        c = self.network.constants
        scaled = replace(
            c.plasticity, potentiation=c.plasticity.potentiation * rate, depression=c.plasticity.depression * rate
        )
        self.network = type(self.network)(replace(c, plasticity=scaled), self.network.wiring)

    # -- state: tensors for checkpoints, the same memory as arrays for the steps ---------------------

    def state(self) -> State:
        """The state under training; its arrays are this module's tensors."""
        state = self.network.rested(self.synapses.weight.T.numpy(), self.get_buffer("theta").numpy(), int(self.step))
        state.w = self.synapses.weight.T.numpy()
        for name in BUFFERS:
            setattr(state, name, self.get_buffer(name).numpy())
        return state

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DiehlCook:
        """Stay on the CPU and in float64, whatever the rest of a run does."""
        return self

    def forget(self) -> None:
        """Let the next evaluation start from rest; training keeps time."""
        self.evaluation = None
        self.answered = []

    # -- presentations -------------------------------------------------------------------------------

    def pixels(self, x: Tensor) -> NDArray[np.float64]:
        """Normalized images `[N, 1, H, W]` as intensities in [0, 1], `[N, inputs]`."""
        intensities = self.spec.pixels(x.detach().cpu().double()).clamp(0, 1)
        return intensities.flatten(1).numpy()

    def present(self, state: State, image: NDArray[np.float64], mode: Mode, rng: np.random.Generator) -> Response:
        """Show one image `[inputs]`, again and brighter while too few neurons answer, and let the network rest."""
        c = self.network.constants
        for repeat in range(MOST_REPEATS + 1):
            # Diehl & Cook's script raises an intensity of 2 by 1.
            rates = image * c.rate * (1 + repeat / 2)
            if repeat and rates.max() * c.dt > 1e3:
                break
            if mode.sign is not None:
                self.network.normalize(state)
            trains = poisson(rates, c.dt, self.time_steps, self.period, rng)
            response = simulate(self.network, state, trains, mode, self.time_steps, self.reference)
            n = self.network.wiring.neurons
            self.synops += float(
                len(trains.inputs) * n + response.excitatory.sum() + (n - 1) * response.inhibitory.sum()
            )  # fmt: skip
            if response.excitatory.sum() >= c.least_spikes:
                break
        return response

    def flush(self, state: State, unused: float, rng: np.random.Generator) -> None:
        """Apply the decay that unused weights still wait for: every input fires for a moment, nothing learns."""
        c, length = self.network.constants, steps(self.network.constants.flush, self.network.constants.dt)
        # Inputs that stay silent by chance keep theirs, as in the paper's notebooks.
        rates = np.full(self.network.wiring.inputs, c.flush_rate)
        trains = poisson(rates, c.dt, length, length, rng)
        simulate(self.network, state, trains, Mode(unused=unused), length, self.reference)

    # -- answers, with learning off ------------------------------------------------------------------

    def answer_as(self, seed: int, unflushed: float) -> None:
        """Say how answers come about.

        Args:
            seed: that the input spikes of answers derive from.
            unflushed: k_p / tau^2 of a decay that unused weights wait for until training is over; 0 is none.
        """
        self.seed, self.unflushed = seed, unflushed

    def flush_rng(self) -> np.random.Generator:
        """Input spikes of the flush."""
        return np.random.default_rng(derive(self.seed, "flush"))

    def frozen(self) -> State:
        """A copy at rest, with the decay that unused weights wait for."""
        state = self.state().copy()
        if self.unflushed > 0 and int(self.flushed_at) != state.step:
            self.flush(state, self.unflushed, self.flush_rng())
        return self.network.rested(state.w, state.theta, state.step)

    def answer(self, x: Tensor) -> list[Response]:
        """The response to each image `[N, 1, H, W]`, from rest if the last pass was forgotten.

        A pass that goes on keeps time: an image's spikes may reach into the next one's presentation.
        """
        key = derive(self.seed, "test spikes")
        if self.evaluation is None:
            self.evaluation = self.frozen()
        responses = []
        for image in self.pixels(x):
            # By its pixels: what came before an image, in this set or another, does not change its input.
            rng = np.random.default_rng([key, zlib.crc32(image.tobytes())])
            responses.append(self.present(self.evaluation, image, Mode(), rng))
        return responses

    def votes(self, responses: list[Response]) -> Tensor:
        """What some presentations answer: `[1, N, classes + 1]`, the mean spikes of each class' neurons, and 1 in the
        last place where none of these has fired: no class is an answer then."""
        counts = np.stack([response.excitatory for response in responses])
        means = vote(counts, self.labels.numpy(), self.spec.classes)
        silent = answers(means) < 0
        return torch.from_numpy(np.concatenate([means, silent[:, None]], axis=1))[None]

    def features(self, x: Tensor) -> Tensor:
        """Votes `[1, N, classes + 1]` for images `[N, 1, H, W]`, see `votes`; `answered` keeps the responses.

        Raises:
            BenchError: a gradient with respect to the images is asked for.
        """
        if x.requires_grad:
            raise BenchError("model=diehl_cook has no gradient with respect to its images")
        self.answered = self.answer(x)
        return self.votes(self.answered).to(x.device)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Each class' share of the votes."""
        return logits.float() / logits.float().sum(-1, keepdim=True)

    def spikes_of_images(self) -> list[Tensor]:
        spikes = [int(response.excitatory.sum() + response.inhibitory.sum()) for response in self.answered]
        return [torch.tensor(spikes)] if spikes else []
