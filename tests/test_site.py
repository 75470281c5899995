"""The documentation as a site: every page that it names is there, every link leads somewhere, the API is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs import site

ROOT = Path(__file__).resolve().parent.parent


def test_the_pages_bring_what_they_link_to(tmp_path: Path) -> None:
    staged = {path.relative_to(ROOT).as_posix() for path in site.stage(tmp_path / "docs")}
    assert {"README.md", "docs/run.svg", "docs/methods/spikepen.md", "docs/methods/acts-on-activity-loss.svg"} <= staged
    assert {"reports/leaderboard/README.md", "bench/regularizers/base.py"} <= staged
    copied = (path for path in (tmp_path / "docs").rglob("*") if path.is_file())
    assert {path.relative_to(tmp_path / "docs").as_posix() for path in copied} == staged
    assert not any(name.startswith(("runs/", "data/", ".venv")) for name in staged)


@pytest.mark.slow
def test_it_is_built_without_a_broken_link() -> None:
    """Slow: the whole site, whose builder looks at each link."""
    site.stage()
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    built = ROOT / "build" / "site"
    api = (built / "docs" / "api" / "index.html").read_text()
    assert "create_model" in api
    assert "image_shape" in api
    method = (built / "docs" / "methods" / "spikepen" / "index.html").read_text()
    assert "acts-on-activity-loss.svg" in method
    # What search reads lies beside it, and nothing is fetched from elsewhere.
    assert "spikepen" in (built / "search.json").read_text()
    assert '<script src="http' not in method
    assert 'rel="stylesheet" href="http' not in method
