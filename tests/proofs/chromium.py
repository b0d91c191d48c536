"""A headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from .helpers import wait_for


class Tab:
    """One page; `events` holds what the browser reported since `open`, as (method, params)."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.number = 0
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result; fails with the browser's own words."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while (answer := self._receive()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        answer = json.loads(self.socket.recv())
        if "method" in answer:
            self.events.append((answer["method"], answer["params"]))
        return answer

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in dict(self.events):
            self._receive()

    def js(self, code: str) -> Any:
        """The value of an expression in the page."""
        done = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screen(self, width: int, height: int, phone: bool = False, scheme: str = "light") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self, path: Path) -> bytes:
        """The page as A4 PDF."""
        sizes = {"paperWidth": 8.27, "paperHeight": 11.69}
        done = self.call("Page.printToPDF", printBackground=False, **sizes)
        path.write_bytes(base64.b64decode(done["data"]))
        return path.read_bytes()

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text,
            )  # fmt: skip

    def complaints(self) -> list[str]:
        """Console messages, exceptions, violations of the policy, and requests for anything."""
        self.js("new Promise(done => setTimeout(done, 50))")  # reports come a little later
        found = []
        for method, params in self.events:
            if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                found.append(f"{method}: {json.dumps(params)[:500]}")
            elif method == "Audits.issueAdded":
                found.append(json.dumps(params["issue"])[:500])
            elif method == "Network.requestWillBeSent" and params["type"] != "Document":
                found.append(f"request for {params['request']['url'][:200]}")
        documents = [p for m, p in self.events if m == "Network.requestWillBeSent"]
        assert len(documents) >= 1  # the page itself: requests are seen
        return found


@contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """A browser with a fresh profile in `folder`; as root it has no sandbox of its own."""
    command = shutil.which("chromium")
    assert command, "not run: there is no chromium; bash tests/prove.sh browser installs it"
    with (folder / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(
            [
                command, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
                "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        place = folder / "profile" / "DevToolsActivePort"
        wait_for(lambda: place.exists() and place.read_text().count("\n"), 60, browser)
        port = place.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
            targets = [t for t in json.load(answer) if t["type"] == "page"]
        tab = Tab(targets[0]["webSocketDebuggerUrl"])
        yield tab
        tab.socket.close()
    finally:
        browser.terminate()
        browser.wait(60)
