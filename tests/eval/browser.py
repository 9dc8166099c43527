"""Headless Chromium for tests, spoken to in W3C WebDriver over HTTP on this machine only. Knows no page; no tests.

A dozen commands of one standard need no client library: selenium would bring 40 MB, an event loop and a manager that
downloads browsers where it finds none, for what is a page of code.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium or chromedriver is not installed: apt-get install chromium chromium-driver",
)
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--hide-scrollbars", "--force-device-scale-factor=1", "--proxy-server=127.0.0.1:9",
)  # fmt: skip
TAB = "\ue004"
# A proxy where nobody listens: whatever a page or the browser itself asks of the network fails on this machine.


class Browser:
    """One browser with one tab, in a fresh profile; a context manager that ends what it began."""

    def __enter__(self) -> Browser:
        assert DRIVER is not None
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            self._session = ""
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self._address = f"http://127.0.0.1:{found[1]}"
                break
        options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={self._profile.name}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL", "performance": "ALL"}
        began = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{began['sessionId']}"
        self._send("POST", f"{self._session}/url", {"url": "about:blank"})  # away from the page for new tabs
        self.log("performance")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._session:
                self._send("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=20)
            self._profile.cleanup()

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}{path}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy of the machine
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def tools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's developer tools."""
        return self._send("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path: Path, *, width: int = 1440, height: int = 900, scheme: str = "light") -> None:
        """Loads a file in a window of this size and colour scheme."""
        self.tools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # no scrolling to wait for
        self.tools("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in wishes.items()])
        self._send("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})

    def script(self, body: str, *arguments: Any) -> Any:
        """The value that a function of this body returns in the page."""
        return self._send("POST", f"{self._session}/execute/sync", {"script": body, "args": list(arguments)})

    def press(self, key: str) -> None:
        """A key, as a user would press it."""
        steps = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        actions = [{"type": "key", "id": "keyboard", "actions": steps}]
        self._send("POST", f"{self._session}/actions", {"actions": actions})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last time: "browser" (console) or "performance" (developer tools' events)."""
        entries: list[dict[str, Any]] = self._send("POST", f"{self._session}/se/log", {"type": kind})
        return entries

    def requested(self) -> list[str]:
        """Addresses the page asked for since the last time."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        taken = self.tools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))
