"""The probes on trained networks: counts and accuracies against independent ones, and networks left as they were."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import ops
from bench.data import DataConfig, open_dataset
from bench.errors import BenchError
from bench.files import read_json
from bench.ops import Backend
from bench.probes import evaluate
from bench.probes._noise_sets import Blur, Level
from bench.probes.adversarial import AdversarialProbe, Attack, gradient_of
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.probes.corruptions import CorruptionsProbe
from bench.probes.noise import NoiseProbe
from bench.registry import MODELS, PROBES

SubjectOf = Callable[..., Subject]
EVERY = [attack for attack in Attack if attack is not Attack.autoattack]


def silent(line: str) -> None:
    """No progress."""


def state(subject: Subject) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in subject.task.state_dict().items()}


def normalized(subject: Subject, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (subject.splits.mean, subject.splits.std))
    return (images.float() / 255 - mean) / std


# -- noise ---------------------------------------------------------------------------------------------


def by_name(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["set"]: row for row in outcome.rows}


def test_known_digits_draw_the_spikes_of_the_record(poisson_run: Path, subject_of: SubjectOf) -> None:
    """Without the flush the network is the recorded one, and the known set is its whole test set."""
    record = read_json(poisson_run / "result.json")
    subject = subject_of(poisson_run, "bake=false")
    known = by_name(NoiseProbe().measure(subject, silent))["known"]
    assert known["images"] == record["test_images"] > 90
    assert known["acc"] == record["test"]["acc"]
    assert known["spike_rate"] == pytest.approx(record["test"]["spike_rate"])
    # One spiking layer of 24 neurons and 6 time steps.
    assert known["output_spikes"] == known["all_spikes"]
    assert known["output_per_image"] == pytest.approx(record["test"]["spike_rate"] * 24 * 6)


def test_unknown_digits_are_those_left_out(poisson_run: Path, subject_of: SubjectOf, shared_data: Path) -> None:
    whole = open_dataset(DataConfig(name="digits", root=str(shared_data)))
    left = ~torch.isin(whole.test_labels, torch.tensor([7, 4, 6]))
    subject = subject_of(poisson_run)
    images, _ = NoiseProbe().sets(subject)["unknown"]
    assert torch.equal(images, whole.test_images[left])
    few, _ = NoiseProbe(unknown=[9, 2, 1], images=30).sets(subject)["unknown"]
    assert len(few) == 30
    labels = {image.numpy().tobytes(): int(y) for image, y in zip(whole.test_images, whole.test_labels, strict=True)}
    assert sorted(labels[image.numpy().tobytes()] for image in few) == [1] * 10 + [2] * 10 + [9] * 10


def test_noise_is_as_bright_as_the_training_digits(poisson_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(poisson_run)
    bright = subject.splits.dataset.train_images.float().mean().item()
    sets = NoiseProbe(images=2000).sets(subject)
    for name in ("delta", "blurred"):
        assert sets[name][0].mean().item() == pytest.approx(bright, rel=0.01)
    assert torch.equal(sets["delta"][0], NoiseProbe(images=2000).sets(subject)["delta"][0])
    dark = NoiseProbe(images=2000, level=Level.dark).sets(subject)["delta"][0]
    assert dark.mean().item() == pytest.approx(255 / 32, rel=0.01)
    across = NoiseProbe(images=2000, blur=Blur.across).sets(subject)["blurred"][0]
    assert across.std() < 0.5 * sets["blurred"][0].std()


def test_a_run_on_the_first_of_each_class_is_probed_on_them(
    poisson_run: Path, subject_of: SubjectOf, shared_data: Path
) -> None:
    loaded = subject_of(poisson_run)
    subject = replace(loaded, data=replace(loaded.data, test_per_class=5))
    whole = open_dataset(DataConfig(name="digits", root=str(shared_data)))
    sets = NoiseProbe(unknown=[9, 2, 1]).sets(subject)
    for name, digits in (("known", (7, 4, 6)), ("unknown", (9, 2, 1))):
        first = {int(place) for digit in digits for place in (whole.test_labels == digit).nonzero().flatten()[:5]}
        expected = {whole.test_images[place].numpy().tobytes() for place in first}
        assert {image.numpy().tobytes() for image in sets[name][0]} == expected
        assert len(sets[name][0]) == 15
    assert len(NoiseProbe(images=6, unknown=[9]).sets(subject)["known"][0]) == 6
    # Of training images one a class makes the mean of noise, and says which pixels are black.
    subject = replace(loaded, data=replace(loaded.data, per_class=1))
    first = torch.stack([whole.train_images[(whole.train_labels == digit).nonzero()[0, 0]] for digit in (7, 4, 6)])
    outcome = NoiseProbe(images=12).measure(subject, silent)
    assert NoiseProbe().mean(subject)[0] == pytest.approx(first.float().mean().item() / 255, rel=1e-6)
    assert outcome.more["input_weights"]["black_pixels"] == int((first.amax(0) == 0).sum())


def test_noise_is_posterized_as_the_images_are(poisson_run: Path, subject_of: SubjectOf) -> None:
    loaded = subject_of(poisson_run)
    subject = replace(loaded, data=replace(loaded.data, posterize=6))
    probe = NoiseProbe(images=50, level=Level.dark)
    images, labels = probe.sets(subject)["delta"]
    seen = torch.cat([x for x, _ in subject.batches(images, labels)])
    pixels = 255 * (seen * subject.splits.std[0] + subject.splits.mean[0])
    # U(0, 255 / 16), cut to multiples of 4: 0, 4, 8, 12, the last a little rarer, of mean 5.95 in place of 7.97.
    assert pixels.round().unique().tolist() == [0, 4, 8, 12]
    assert "cut to 6 bits" in probe.measure(subject, silent).notes["delta"]


def test_counts_are_those_of_the_last_spiking_layer(conv_run: Path, subject_of: SubjectOf) -> None:
    """Counted again from the spikes themselves, which the probe does not keep."""
    subject = subject_of(conv_run)
    rows = by_name(NoiseProbe(images=40).measure(subject, silent))
    images, _ = NoiseProbe(images=40).sets(subject)["delta"]
    with torch.no_grad():
        _, activity = subject.task.forward_t(normalized(subject, images))
    counts = [int(layer.spikes.count_nonzero()) for layer in activity.values()]
    subject.task.model.forget()
    # A spike at the threshold may fall either way when the normalization rounds differently.
    assert rows["delta"]["output_spikes"] == pytest.approx(counts[-1], rel=0.01)
    assert rows["delta"]["all_spikes"] == pytest.approx(sum(counts), rel=0.01)
    assert sum(counts) > 3 * counts[-1] > 0
    assert "unknown" not in rows
    assert "pruned behind black pixels (%)" not in NoiseProbe(images=10).measure(subject, silent).headline


def test_the_flush_prunes_what_is_behind_black_pixels(poisson_run: Path, subject_of: SubjectOf) -> None:
    flushed = NoiseProbe(images=10).measure(subject_of(poisson_run), silent)
    weights = flushed.more["input_weights"]
    assert weights["black_pixels"] > 3
    assert weights["pixels"] == 32 * 32
    assert weights["pruned_behind_black"] == 1.0
    assert weights["mean_abs_behind_black"] < 1e-6 < weights["mean_abs_behind_others"]
    # The flush is what does it: the checkpoint's own weights are still there.
    subject = subject_of(poisson_run, "bake=false")
    unflushed = NoiseProbe(images=10).measure(subject, silent)
    assert unflushed.more["input_weights"]["mean_abs_behind_black"] > 0.01
    (weight,) = (p for p in subject.task.model.parameters() if p.shape == (24, 1024))
    lit = (subject.splits.dataset.train_images.amax((0, 1)) > 0).flatten()
    small = weight[:, ~lit].abs() < 1e-3 * weight[:, lit].abs().mean()
    name = "pruned behind black pixels (%)"
    assert unflushed.headline[name] == pytest.approx(100 * float(small.double().mean()))
    assert 0 <= unflushed.headline[name] < 50 < flushed.headline[name] == 100


def test_a_silent_network_has_no_ratio(poisson_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(poisson_run)
    for parameter in subject.task.model.parameters():
        parameter.zero_()
    outcome = NoiseProbe(images=10).measure(subject, silent)
    assert {row["output_spikes"] for row in outcome.rows} == {0}
    assert {row["relative"] for row in outcome.rows} == {None}
    assert outcome.headline["delta noise / known"] is None


def test_what_the_noise_probe_cannot_do(poisson_run: Path, conv_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(poisson_run)
    for unknown, message in (
        ([7], r"noise.unknown: class '7' was trained on"),
        (["x"], r"noise.unknown: there is no class 'x'"),
        ([1, 1], r"noise.unknown=\[1, 1\] has class '1' twice"),
        ([], r"noise.unknown=\[\] has 0 of at least 1"),
    ):
        with pytest.raises(BenchError, match=message):
            NoiseProbe(unknown=unknown).measure(subject, silent)  # type: ignore[arg-type]
    with pytest.raises(BenchError, match=r"noise.unknown=\[1\], but the run was trained on all classes"):
        NoiseProbe(unknown=[1]).measure(subject_of(conv_run), silent)
    with pytest.raises(BenchError, match=r"noise\.images is 0, it must be at least 1"):
        NoiseProbe(images=0)


# -- attacks -------------------------------------------------------------------------------------------


def test_radius_0_is_the_recorded_accuracy(conv_run: Path, subject_of: SubjectOf) -> None:
    record = read_json(conv_run / "result.json")
    outcome = AdversarialProbe(eps=[0.0], steps=2, images=10_000).measure(subject_of(conv_run, "bake=false"), silent)
    assert outcome.images == 360
    assert {row["acc"] for row in outcome.rows} == {record["test"]["acc"]}
    assert outcome.rows[0]["spike_rate"] == pytest.approx(record["test"]["spike_rate"])
    attacks = ["none", "fgsm", "pgd", "sapgd", "square", "any"]
    assert [row["attack"] for row in outcome.rows] == attacks


def test_pgd_beats_fgsm_which_beats_noise(conv_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(conv_run)
    probe = AdversarialProbe([Attack.fgsm, Attack.pgd], eps=[0.1, 0.2], steps=8, images=120)
    outcome = probe.measure(subject, silent)
    acc = {(row["attack"], row["eps"]): row["acc"] for row in outcome.rows}
    assert acc["none", 0.0] > 85
    assert acc["pgd", 0.1] < acc["fgsm", 0.1] < acc["none", 0.0]
    assert acc["pgd", 0.2] < acc["pgd", 0.1]
    images, labels = subject.test_images(120)
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = (images.float() + 0.1 * 255 * signs).clamp(0, 255)
    assert acc["fgsm", 0.1] < subject.measure(noisy, labels).summary()["acc"]  # type: ignore[operator]
    assert outcome.headline == {
        "clean (%)": acc["none", 0.0], "pgd eps 0.1 (%)": acc["pgd", 0.1], "pgd eps 0.2 (%)": acc["pgd", 0.2],
        "any attack eps 0.1 (%)": acc["any", 0.1], "any attack eps 0.2 (%)": acc["any", 0.2],
    }  # fmt: skip
    assert acc["any", 0.1] <= acc["pgd", 0.1]
    assert outcome.doubts == []


def test_attacked_images_stay_in_the_ball(conv_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(conv_run)
    probe = AdversarialProbe(steps=3, adaptive_steps=3, queries=5)
    images, labels = subject.test_images(50)
    for attack in (probe.fgsm, probe.pgd, probe.pgd_assg, probe.sapgd, probe.square):
        attacked = attack(subject, images.float(), labels, 0.05, 0)
        assert (attacked - images).abs().max() == pytest.approx(0.05 * 255, rel=1e-4)
        assert attacked.min() >= 0
        assert attacked.max() <= 255


def test_the_kernels_give_the_reference_gradient(conv_run: Path, subject_of: SubjectOf) -> None:
    """An attack is only as good as the gradient that reaches the image through fused layers in evaluation."""
    subject = subject_of(conv_run)
    images, labels = subject.test_images(30)
    gradients = []
    for backend in (Backend.auto, Backend.reference):
        with ops.using(backend):
            gradients.append(gradient_of(subject)(images.float(), labels).flatten(1))
    assert (gradients[1].abs().amax(1) > 0).all()
    # An image whose spike at the threshold falls the other way has another gradient; most have the same.
    assert (F.cosine_similarity(*gradients) > 0.999).double().mean() > 0.8


def test_any_attack_is_counted_image_by_image(conv_run: Path, subject_of: SubjectOf) -> None:
    """Counted again from what each attack leaves."""
    subject = subject_of(conv_run)
    attacks = [Attack.fgsm, Attack.sapgd, Attack.square]
    probe = AdversarialProbe(attacks, eps=[0.1], images=60, adaptive_steps=3, queries=8)
    rows = {row["attack"]: row["acc"] for row in probe.measure(subject, silent).rows}
    images, labels = subject.test_images(60)
    right = subject.judge(images, labels)[1]
    for attack in (probe.fgsm, probe.sapgd, probe.square):
        attacked = attack(subject, images.float(), labels, 0.1, 0)
        with torch.no_grad():
            right &= subject.logits(normalized(subject, attacked)).argmax(1) == labels
    # A spike at the threshold may fall either way when the normalization rounds differently.
    assert rows["any"] == pytest.approx(100 * float(right.double().mean()), abs=2)
    assert rows["any"] <= min(rows.values()) < rows["none"]


def test_masked_gradients_are_noticed(conv_run: Path, subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose gradient is 0 everywhere: attacks that follow it fail, and one that follows none does not."""
    subject = subject_of(conv_run)
    model = subject.task.model
    masked = lambda features: model.head(features.detach().mean(0) + 0 * features.mean(0))  # noqa: E731
    monkeypatch.setattr(model, "logits", masked)
    probe = AdversarialProbe([Attack.fgsm, Attack.pgd, Attack.square], eps=[0.2], steps=3, images=120)
    outcome = probe.measure(subject, silent)
    acc = {row["attack"]: row["acc"] for row in outcome.rows}
    assert acc["fgsm"] == acc["none"] > 85
    assert acc["square"] < acc["pgd"] - 20
    assert outcome.more["zero_gradient"] == 100
    assert outcome.doubts is not None
    (reason,) = outcome.doubts
    assert re.match(
        r"at eps 0\.2 square, which follows no gradient, leaves .* %, and (fgsm|pgd), the strongest", reason
    )
    # One step from the image itself goes nowhere, whatever the radius.
    flat = AdversarialProbe([Attack.fgsm], eps=[0.1, 0.3], images=60).measure(subject, silent)
    assert flat.doubts is not None
    assert [reason[:22] for reason in flat.doubts] == ["accuracy does not fall"]


def test_square_alone_needs_no_gradient(conv_run: Path, subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(conv_run)
    model = subject.task.model
    monkeypatch.setattr(model, "logits", lambda features: model.head(features.detach().mean(0)))
    outcome = AdversarialProbe([Attack.square], eps=[0.2], images=30, queries=5).measure(subject, silent)
    assert outcome.rows[1]["acc"] < outcome.rows[0]["acc"]
    assert outcome.more == {}
    assert outcome.doubts is None


def test_too_few_images_name_the_probes_setting(conv_run: Path, subject_of: SubjectOf) -> None:
    subject = evaluate.named(subject_of(conv_run), "adversarial")
    with pytest.raises(BenchError, match=r"^adversarial\.images=8 is too few: there are 10 classes"):
        AdversarialProbe(images=8).measure(subject, silent)
    # Named or not, the same images are chosen.
    assert torch.equal(subject.test_images(30)[0], subject_of(conv_run).test_images(30)[0])


def test_gradients_pass_poisson_inputs(poisson_run: Path, subject_of: SubjectOf) -> None:
    subject = subject_of(poisson_run)
    outcome = AdversarialProbe(eps=[0.3], steps=5, images=90, adaptive_steps=5).measure(subject, silent)
    acc = {row["attack"]: row["acc"] for row in outcome.rows}
    assert acc["pgd"] < acc["none"] - 20
    assert acc["sapgd"] < acc["none"] - 20
    assert outcome.more["zero_gradient"] < 50


def test_autoattack_is_at_least_as_strong(conv_run: Path, subject_of: SubjectOf) -> None:
    pytest.importorskip("pyautoattack", reason="the extra `robust` is not installed")
    subject = subject_of(conv_run)
    probe = AdversarialProbe([Attack.pgd, Attack.autoattack], eps=[0.15], steps=5, images=10)
    acc = {row["attack"]: row["acc"] for row in probe.measure(subject, silent).rows}
    assert acc["autoattack"] <= acc["pgd"] < acc["none"]


def test_autoattack_says_what_it_needs(
    poisson_run: Path, conv_run: Path, subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = AdversarialProbe([Attack.autoattack], images=10)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"pip install 'snn-bench\[robust\]'"):
        probe.measure(subject_of(conv_run), silent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(BenchError, match="compare four classes, and the run has 3"):
        probe.measure(subject_of(poisson_run), silent)


def test_without_a_gradient_there_is_no_attack(
    poisson_run: Path, subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(poisson_run)
    model = subject.task.model
    monkeypatch.setattr(model, "logits", lambda features: model.head(features.detach().mean(0)))
    with pytest.raises(BenchError, match="probe=adversarial follows gradients, and none reaches the image"):
        AdversarialProbe(eps=[0.1], images=10).measure(subject, silent)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": []}, "must name one or more attacks"),
        ({"attacks": [Attack.pgd, Attack.pgd]}, r"\[pgd,pgd\] must name one or more attacks, each once"),
        ({"eps": [0.1, 2.0]}, r"adversarial.eps has 2, it must lie in \[0, 1\]"),
        ({"eps": []}, "it needs a radius"),
        ({"steps": 0}, "adversarial.steps is 0, it must be at least 1"),
        ({"step": -1.0}, "adversarial.step is -1, it must be above 0"),
        ({"omega": 0.0}, "adversarial.omega is 0, it must be above 0"),
        ({"queries": 0}, "adversarial.queries is 0, it must be at least 1"),
        ({"adaptive_steps": 0}, "adversarial.adaptive_steps is 0, it must be at least 1"),
    ],
)
def test_attacks_out_of_range_get_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        AdversarialProbe(**settings)


# -- corruptions ---------------------------------------------------------------------------------------


def test_corruptions_cost_accuracy_and_are_averaged(conv_run: Path, subject_of: SubjectOf) -> None:
    outcome = CorruptionsProbe(["jpeg", "gaussian_noise"], images=120).measure(subject_of(conv_run), silent)
    assert len(outcome.rows) == 1 + 2 * 5
    clean = outcome.rows[0]
    assert (clean["corruption"], clean["severity"], clean["drop"]) == ("none", 0, 0.0)
    kinds = ("jpeg", "gaussian_noise")
    accs = {name: [row["acc"] for row in outcome.rows if row["corruption"] == name] for name in kinds}
    # 12 to 29 points of a network trained this shortly: it depends on the rounding of the machine's kernels.
    assert accs["gaussian_noise"][-1] < clean["acc"] - 5
    means = {name: sum(values) / 5 for name, values in accs.items()}
    assert outcome.more["means"]["jpeg"]["acc"] == pytest.approx(means["jpeg"])
    assert outcome.headline["corrupted (%)"] == pytest.approx(sum(means.values()) / 2)
    assert all(0 < row["spike_rate"] < 1 for row in outcome.rows)


def test_an_unknown_corruption_gets_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"there is no 'jpg'\. Did you mean 'jpeg'"):
        CorruptionsProbe(["jpg"])


# -- all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bake", ["true", "false"])
@pytest.mark.parametrize(
    "probe",
    [
        NoiseProbe(images=20),
        AdversarialProbe(EVERY, eps=[0.1], steps=2, images=20, adaptive_steps=2, queries=3),
        CorruptionsProbe(["rotate"], images=20),
    ],
    ids=lambda probe: type(probe).__name__,
)
@pytest.mark.parametrize("run", ["conv_run", "poisson_run"])
def test_a_probe_changes_nothing(
    run: str, probe: Probe, bake: str, subject_of: SubjectOf, request: pytest.FixtureRequest
) -> None:
    """Weights, running statistics, the clocks of use-it-or-lose-it, gradients, and torch's generator."""
    subject = subject_of(request.getfixturevalue(run), f"bake={bake}")
    before, rng = state(subject), torch.get_rng_state()
    assert any("use_clock" in name for name in before) is (bake == "false")
    first = probe.measure(subject, silent)
    after = subject.task.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in subject.task.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not subject.task.training
    again = probe.measure(subject, silent)
    assert (again.rows, again.headline) == (first.rows, first.headline)


def untrained(model: str, root: Path, *settings_: str) -> Subject:
    """A network of the smallest budget as it starts."""
    from bench.config.component import settings
    from bench.config.compose import compose
    from bench.data import prepare
    from bench.training.setup import make_task

    cfg = compose([f"data.root={root}", "budget=smoke", f"model={model}", "data.limit=40", *settings_])
    splits = prepare(settings(cfg.data), seed=0, batch_size=8)
    task = make_task(cfg, splits).eval()
    return Subject(task.requires_grad_(False), splits, settings(cfg.data), "fp32", 8, "cpu", 0, root, pytest.fail)


@pytest.mark.parametrize("model", MODELS.names())
def test_every_network_can_be_probed(model: str, shared_data: Path) -> None:
    subject = untrained(model, shared_data)
    outcome = NoiseProbe(images=10).measure(subject, silent)
    assert [row["images"] for row in outcome.rows] == [10, 10, 10]
    assert all(row["output_spikes"] >= 0 for row in outcome.rows)
    assert len(CorruptionsProbe(["jpeg"], images=10).measure(subject, silent).rows) == 6
    attack = AdversarialProbe(EVERY, eps=[0.1], steps=1, images=10, adaptive_steps=1, queries=2)
    if model == "diehl_cook":  # learns locally
        with pytest.raises(BenchError, match="gradient"):
            attack.measure(subject, silent)
    else:
        assert len(attack.measure(subject, silent).rows) == 7


def test_the_probe_of_the_docs_is_one(conv_run: Path, subject_of: SubjectOf) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "probes.md").read_text()
    (example,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    known = {"PROBES": PROBES, "Probe": Probe, "Outcome": Outcome, "Subject": Subject, "Say": Say}
    try:
        exec(example, known)
        subject = subject_of(conv_run)
        outcome = PROBES.get("half")(images=60).measure(subject, silent)
    finally:
        for known in (PROBES._items, PROBES._brought):
            known.pop("half", None)
    images, labels = subject.test_images(60)
    with torch.no_grad():
        right = subject.logits(normalized(subject, images / 2)).argmax(1) == labels
    assert outcome.rows == [{"set": "half", "acc": pytest.approx(100 * float(right.double().mean()), abs=2)}]
