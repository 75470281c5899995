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


POINTS = "document.querySelectorAll('#rate .mark-symbol path').length"
ROWS = "document.querySelectorAll('#settings tbody tr').length"


def chip(facet: str, value: str) -> str:
    """Clicks a filter."""
    return f"document.querySelector('[data-facet={facet}] [data-value=\"{value}\"]').click()"


def test_charts_are_drawn_and_filters_change_them(
    browse: Any, records: SimpleNamespace, written: Path, tmp_path: Path
) -> None:
    """Slow: it starts a browser, since only that shows whether the page works."""
    shots = Path(os.environ.get("BENCH_SCREENSHOTS") or tmp_path)

    async def story(tab: Tab) -> None:
        await tab.call("Emulation.setDeviceMetricsOverride", width=1280, height=2200, deviceScaleFactor=1, mobile=False)
        await tab.open((written / "index.html").as_uri())
        for name in ("rate", "synops", "strength", "spikes", "gap", "curves", "layers"):
            assert await tab.js(f"document.querySelectorAll('#{name} svg .role-mark path').length") > 5, name
        assert await tab.js(POINTS) == await tab.js(ROWS) == 10
        await shoot(tab, shots / "page-light.png")
        # From all, a click on a chip singles it out, in charts and table alike.
        await tab.js(chip("reg", "dropout"))
        await tab.js("Promise.all(Object.values(views).map((view) => view.runAsync())).then(() => null)")
        assert await tab.js(POINTS) == await tab.js(ROWS) == 3
        await tab.js(chip("reg", "*"))
        await tab.js("Promise.all(Object.values(views).map((view) => view.runAsync())).then(() => null)")
        assert await tab.js(POINTS) == await tab.js(ROWS) == 10
        # Sorting by spike rate, most first, then fewest.
        first = "document.querySelector('#settings tbody td').textContent"
        await tab.js("document.querySelector('#settings th[data-key=test_spike_rate] button').click()")
        assert await tab.js(first) == "dropout p=0.5"
        await tab.js("document.querySelector('#settings th[data-key=test_spike_rate] button').click()")
        assert await tab.js(first) == "spikepen weight=5 order=2"
        # A click on a row marks its point.
        await tab.js("document.querySelector('#settings tbody tr').click()")
        await tab.js("Promise.all(Object.values(views).map((view) => view.runAsync())).then(() => null)")
        assert await tab.js("document.querySelectorAll('#settings tr.picked').length") == 1
        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=2600, deviceScaleFactor=2, mobile=True)
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        await asyncio.sleep(1.5)
        assert await tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
        # Nothing is wider than the phone but what scrolls by itself.
        assert await tab.js("document.documentElement.scrollWidth <= 390")
        await shoot(tab, shots / "page-phone-dark.png")
        assert tab.console == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []

    browse(story)


async def shoot(tab: Tab, path: Path) -> None:
    """Save a picture, for people."""
    import base64

    picture = await tab.call("Page.captureScreenshot", format="png")
    path.write_bytes(base64.b64decode(picture["data"]))
