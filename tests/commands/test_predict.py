"""`bench predict` in a process of its own: from a run's weights and files of images to labels, tables, a raster."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.commands.predict import shown_steps
from bench.data.images import picture, pictures, resized
from bench.errors import BenchError

Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three grey images of the network's size, one of them in a folder below."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.bmp", "c.tif"):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_run_says_what_it_sees(
    bench: Bench, run_tiny: Callable[..., dict[str, Any]], scans: Path, tmp_path: Path
) -> None:
    run = run_tiny("reg=spikepen")["run_id"]
    # Without the data that it was trained on.
    nothing = {"BENCH_DATA": str(tmp_path / "nothing")}
    done = bench("predict", run, str(scans), "--json", env=nothing)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [Path(row["image"]).name for row in rows] == ["a.png", "c.tif", "b.bmp"]
    import bench as face

    pixels = np.stack([np.asarray(Image.open(row["image"])) for row in rows])
    seen = face.load(run).predict(pixels)
    assert [row["label"] for row in rows] == list(seen.labels)
    assert [row["spikes"] for row in rows] == seen.spikes.tolist()  # type: ignore[union-attr]
    for place, row in enumerate(rows):
        assert list(row["probabilities"].values()) == pytest.approx(seen.probabilities[place].tolist(), abs=1e-6)
        assert len(row["by_step"]) == 2
        assert sum(row["by_step"][0].values()) == pytest.approx(1)
    table = bench("predict", run, str(scans / "a.png"), "--raster", str(tmp_path / "a-raster.png"))
    assert table.returncode == 0, table.stderr
    assert f"{rows[0]['spikes']:,}" in table.stdout
    assert "t = 1" in table.stdout
    with Image.open(tmp_path / "a-raster.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 100


def test_nothing_is_resized_without_being_asked(
    bench: Bench, run_tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run = run_tiny()["run_id"]
    colour, grey = tmp_path / "colour.png", tmp_path / "grey.png"
    pixels = np.full((40, 20, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(colour)
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(grey)
    done = bench("predict", run, str(grey), str(colour))
    assert (done.returncode, done.stderr) == (
        2, f"error: {colour} is 20 x 40 pixels in colour, the network takes 32 x 32 pixels in grey: --resize\n"
    )  # fmt: skip
    assert bench("predict", run, str(grey), str(colour), "--resize").returncode == 0
    made = resized(picture(colour), (1, 32, 32))
    # Rec. 601 luma of the colour, by hand: 0.299 R + 0.587 G + 0.114 B.
    assert made.shape == (1, 32, 32)
    assert np.unique(made).tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert resized(picture(grey), (3, 8, 8)).tolist() == np.full((3, 8, 8), 7).tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.png",), "there is no image and no folder nowhere.png"),
        (("scans/notes.txt",), "scans/notes.txt is no image by its name: .txt"),
        (("empty",), "empty has no images"),
        (("broken.png",), "broken.png is no image that can be read"),
        (("scans", "--raster", "out.png"), "--raster draws one image, these are 3"),
        (("scans/a.png", "--raster", "out.jpg"), "--raster writes a PNG, and out.jpg is called otherwise"),
        ((), "name a run and its images: bench predict RUN IMAGE..."),
    ],
)
def test_bad_input_is_a_line(
    words: tuple[str, ...], said: str, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    run_tiny: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from bench.__main__ import main

    run = run_tiny("time_steps=1")["run_id"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["predict", run, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_run_without_weights_is_a_line(
    bench: Bench, run_tiny: Callable[..., dict[str, Any]], scans: Path, tmp_path: Path
) -> None:
    run = run_tiny()["run_id"]
    shutil.rmtree(tmp_path / "runs" / run / "checkpoints")
    (tmp_path / "runs" / run / "model.safetensors").unlink()
    done = bench("predict", run, str(scans))
    assert done.returncode == 2
    assert "has a record but no model.safetensors" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_images_of_a_folder(scans: Path) -> None:
    assert [path.name for path in pictures(scans)] == ["a.png", "c.tif", "b.bmp"]
    with pytest.raises(BenchError, match="no image and no folder"):
        pictures(scans / "none")


@pytest.mark.parametrize(("steps", "shown"), [(1, [0]), (8, list(range(8))), (16, [0, 3, 7, 11, 15])])
def test_of_many_steps_some_are_shown(steps: int, shown: list[int]) -> None:
    assert shown_steps(steps) == shown
