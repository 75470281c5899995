"""The page in a real browser: charts drawn, filters that change them, no error, nothing fetched."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("altair", reason="extra `report`")
pytest.importorskip("vl_convert", reason="extra `report`")

from bench.report import page
from bench.report.analysis import analyse
from bench.report.collect import gather
from bench.report.figures import colour_of
from bench.report.groups import groups
from bench.report.leaderboard import Leaderboard
from bench.report.leaderboard_text import sentence
from tests.report.boards import board, contrast, entry, leaderboard

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Tab:
    """A page in headless Chromium, over its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.count = socket, 0
        self.console: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": params})
        wanted = self.count
        while True:
            message = json.loads((await self.socket.receive(timeout=60)).data)
            if message.get("id") == wanted:
                assert "error" not in message, message
                return dict(message["result"])
            self.note(message)

    def note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message["method"] == "Log.entryAdded":
            self.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif message["method"] == "Runtime.consoleAPICalled":
            self.console.append(f"{params['type']}: {[argument.get('value') for argument in params['args']]}")
        elif message["method"] == "Runtime.exceptionThrown":
            self.console.append(f"exception: {params['exceptionDetails']}")

    async def js(self, text: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        for _ in range(300):
            if await self.js("document.body && document.body.dataset.ready === 'yes'"):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the page is not ready: {self.console}")


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[Callable[[Tab], Awaitable[None]]], None]]:
    """browse(story): run a coroutine with a tab of a browser that ends with the test."""
    aiohttp = pytest.importorskip("aiohttp")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'chromium'}",
    ]  # fmt: skip
    with subprocess.Popen(
        [CHROMIUM, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            address = next(match[1] for line in process.stderr if (match := re.search(r"(ws://\S+)", line)))
            port = re.search(r":(\d+)/", address)
            assert port is not None

            async def go(story: Callable[[Tab], Awaitable[None]]) -> None:
                async with aiohttp.ClientSession() as session:
                    async with session.get(f"http://127.0.0.1:{port[1]}/json/list") as answer:
                        pages = [target for target in await answer.json() if target["type"] == "page"]
                    url = pages[0]["webSocketDebuggerUrl"]
                    async with session.ws_connect(url, max_msg_size=2**27) as socket:
                        await story(Tab(socket))

            yield lambda story: asyncio.run(go(story))
        finally:
            process.terminate()
            process.stderr.close()


POINTS = "document.querySelectorAll('#tradeoff .mark-symbol path').length"
ROWS = "document.querySelectorAll('#ranked tbody tr').length"
NAMES = "[...document.querySelectorAll('#ranked tbody td.name')].map((cell) => cell.textContent)"
HASH = "location.hash"


def chip(facet: str, value: str) -> str:
    """Clicks a filter, and waits for the charts."""
    return f"document.querySelector('[data-facet={facet}] [data-value=\"{value}\"]').click(), window.drawing"


def marks(chart: str) -> str:
    """Counts what a chart has drawn."""
    return f"document.querySelectorAll('#{chart} svg .role-mark path, #{chart} svg .role-mark line').length"


async def size(tab: Tab, width: int, height: int, dark: bool, mobile: bool = False) -> None:
    """The window, and what its user prefers."""
    await tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await tab.call("Emulation.setEmulatedMedia", features=[scheme])


async def fits(tab: Tab, width: int) -> None:
    """Nothing on the page is wider than its window, nor scrolls sideways by itself."""
    assert await tab.js("innerWidth") == width
    assert await tab.js("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('main *')].filter((node) => node.scrollWidth > node.clientWidth + 1 && "
        "['auto', 'scroll'].includes(getComputedStyle(node).overflowX)).map((node) => node.id || node.tagName)"
    )
    assert await tab.js(wide) == []
    over = (
        "[...document.querySelectorAll('td, th, #answer, figure, svg')]"
        f".filter((node) => node.getBoundingClientRect().right > {width} + 1)"
        ".map((node) => node.outerHTML.slice(0, 80))"
    )
    assert await tab.js(over) == []


def clean(tab: Tab) -> None:
    """No warning, no error, and nothing fetched."""
    assert tab.console == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


def test_the_page_without_a_leaderboard(browse: Any, records: SimpleNamespace, tmp_path: Path) -> None:
    """Slow: it starts a browser, since only that shows whether the page works."""
    shots = Path(os.environ.get("BENCH_SCREENSHOTS") or tmp_path)
    collected = tmp_path / "records"
    records.grid(collected)
    for seed in range(2):
        for name, regs in (("none", {"none": {}}), ("dropout", {"dropout": {"p": 0.3}})):
            run = f"mnist-sew-{name}-s{seed}-00000000"
            records.put(
                collected, records.record(run_id=run, data="mnist", model="sew", reg=name, regs=regs, seed=seed)
            )
    # The non-spiking twin, for the energy.
    records.put(collected, records.record(run_id="digits-cnn-none-s0-11111111", neuron="relu", epochs=6, energy_uj=4.0))
    collection = gather([collected], False, lambda line: None)
    page_file = tmp_path / "index.html"
    page_file.write_text(page.render([analyse(table) for table in groups(collection)], [], collection.records))

    async def story(tab: Tab) -> None:
        await size(tab, 1400, 2200, dark=False)
        await tab.open(page_file.as_uri())
        answer = await tab.js("document.getElementById('answer').textContent")
        assert answer.startswith("On digits (cnn, budget quick: 1,437 images, 6 epochs), spikepen, weight ")
        assert "budget quick" in await tab.js("document.getElementById('reduced').textContent")
        # The answer, the table and the first chart begin in the first window of a laptop.
        assert await tab.js("document.querySelector('#ranked tbody tr').getBoundingClientRect().top") < 400
        assert await tab.js("document.getElementById('tradeoff').getBoundingClientRect().top") < 900
        # Eight rows, and the baseline wherever it stands, until all are asked for.
        assert await tab.js(ROWS) in (8, 9)
        assert "none" in await tab.js(NAMES)
        await tab.js("document.getElementById('more').click()")
        for name in ("tradeoff", "strength", "spikes", "curves", "gap", "layers"):
            assert await tab.js(marks(name)) > 5, name
            assert "n = 3 seeds" in await tab.js(f"document.getElementById('{name}-figure').textContent"), name
        assert await tab.js(POINTS) == await tab.js(ROWS) == 10
        await fits(tab, 1400)
        await shoot(tab, shots / "page-light.png")
        # Layers and settings in words.
        text = await tab.js("document.body.innerText + document.getElementById('layers').textContent")
        assert "layer 1" in text
        assert "spiking.0" not in text
        assert "weight=" not in text
        # The twin's energy beside: 0.2 + 9 x 0.1 of 4.
        assert "ReLU twin 4.0" in text
        assert "[27 % of it]" in text or "[28 % of it]" in text
        # A click on a method singles it out and keeps the baseline, in charts and table alike, and in the address.
        await tab.js(chip("methods", "dropout"))
        assert await tab.js(POINTS) == await tab.js(ROWS) == 4
        assert "none" in await tab.js(NAMES)
        assert "methods=dropout" in await tab.js(HASH)
        await tab.js(chip("methods", "*"))
        assert await tab.js(POINTS) == await tab.js(ROWS) == 10
        # Another data set replaces the first, for no axis holds both.
        await tab.js(chip("data", "mnist"))
        assert await tab.js(POINTS) == await tab.js(ROWS) == 2
        assert "data=mnist&network=sew" in await tab.js(HASH)
        assert (await tab.js("document.getElementById('answer').textContent")).startswith("On MNIST (sew")
        await tab.js(chip("data", "digits"))
        # The costs are one axis, one at a time.
        await tab.js("document.querySelector('#costs [data-value=synops]').click(), window.drawing")
        assert "SynOps" in await tab.js("document.getElementById('tradeoff').textContent")
        assert "cost=synops" in await tab.js(HASH)
        # Sorting by spike rate, most first, then fewest.
        await tab.js("document.querySelectorAll('#ranked th button')[3].click()")
        assert (await tab.js(NAMES))[0] == "dropout, p 0.5"
        await tab.js("document.querySelectorAll('#ranked th button')[3].click()")
        assert (await tab.js(NAMES))[0] == "spikepen, weight 5, order 2"
        # A click on a row marks it.
        await tab.js("document.querySelector('#ranked tbody tr').click(), window.drawing")
        assert await tab.js("document.querySelectorAll('#ranked tr.picked').length") == 1
        # The address brings the selection back.
        await tab.js("location.hash = 'data=digits&network=cnn&methods=spikepen&cost=energy'")
        await asyncio.sleep(0.2)
        await tab.js("window.drawing")
        assert await tab.js(ROWS) == 7
        assert "energy" in await tab.js("document.getElementById('tradeoff').textContent")
        clean(tab)

    browse(story)


def test_the_page_of_a_leaderboard_on_a_phone_in_the_dark(
    browse: Any, records: SimpleNamespace, tmp_path: Path, written: Path
) -> None:
    """Slow: it starts a browser."""
    shots = Path(os.environ.get("BENCH_SCREENSHOTS") or tmp_path)
    collection = gather([written / "records"], False, lambda line: None)
    page_file = tmp_path / "index.html"
    made = [analyse(table) for table in groups(collection)]
    page_file.write_text(page.render(made, [], collection.records, leaderboard()))

    async def story(tab: Tab) -> None:
        await size(tab, 390, 2600, dark=True, mobile=True)
        await tab.open(page_file.as_uri())
        assert await tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
        answer = await tab.js("document.getElementById('answer').textContent")
        assert answer == sentence(leaderboard().boards[0]).replace("`", "")
        await fits(tab, 390)
        await shoot(tab, shots / "page-phone-dark.png")
        await size(tab, 1400, 2200, dark=False)
        await asyncio.sleep(0.5)
        await tab.js("window.drawing")
        await fits(tab, 1400)
        assert await tab.js(ROWS) == 11
        # Tuned entries only, those without runs are no points, and one has a cheaper choice beside its own.
        assert await tab.js(POINTS) == 10
        assert "spikepen, fewest spikes" in await tab.js("document.getElementById('tradeoff').textContent")
        for name in ("tradeoff", "trials", "best"):
            assert await tab.js(marks(name)) > 5, name
            assert "n = " in await tab.js(f"document.getElementById('{name}-figure').textContent"), name
        assert await tab.js("document.getElementById('strength-figure').hidden")
        assert "3 of 8 trials" in await tab.js("document.querySelector('#ranked tr.incomplete').textContent")
        # One colour for a method: in the table, in the chart, in the figures.
        dot = "getComputedStyle(document.querySelector('[data-facet=methods] [data-value=spikepen] i')).backgroundColor"
        assert await tab.js(dot) == "rgb(228, 87, 5)"
        fills = "[...document.querySelectorAll('#tradeoff .mark-symbol path')].map((path) => path.getAttribute('fill'))"
        assert (await tab.js(fills)).count(colour_of("spikepen")) == 2
        assert "4.0 %" in await tab.js("document.getElementById('overall').textContent")
        await shoot(tab, shots / "page-board-light.png")
        await tab.js(chip("board", "cifar10-4k"))
        assert await tab.js(ROWS) == 2
        assert await tab.js(HASH) == "#board=cifar10-4k"
        # From a workload to all runs and back.
        await tab.js(chip("data", "digits"))
        assert await tab.js(POINTS) == 10
        await tab.js(chip("board", "mnist-1k"))
        assert await tab.js(ROWS) == 11
        clean(tab)

    browse(story)


def test_the_answer_stands_in_the_page_without_scripts(written: Path, tmp_path: Path) -> None:
    """Who reads the file, or has no JavaScript, reads the sentence too; nothing in it is markup."""
    collection = gather([written / "records"], False, lambda line: None)
    made = [analyse(table) for table in groups(collection)]
    hostile = Leaderboard((board(entry("dropout", difference=contrast(0.1, "alike", 0.2)), title="<b>A & B</b>"),), ())
    text = page.render(made, [], collection.records, hostile)
    assert '<p id="answer" aria-live="polite">On &lt;b&gt;A &amp; B&lt;/b&gt;, nothing cuts spikes' in text


async def shoot(tab: Tab, path: Path) -> None:
    """Save a picture, for people."""
    import base64

    picture = await tab.call("Page.captureScreenshot", format="png")
    path.write_bytes(base64.b64decode(picture["data"]))
