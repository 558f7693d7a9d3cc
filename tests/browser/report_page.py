"""A real browser, and what any report must hold in it: on a phone and a desk, light and dark, by keyboard alone."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_SECONDS = 120.0
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
PHONE_PX, DESK_PX = 390, 1280

# Of every element with text of its own: contrast with the nearest painted background behind it, by WCAG 2:
# at least 4.5, or 3 for large text (24 px, or 18.66 px bold).
TOO_FAINT = """(() => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((byte) => byte / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const painted = (element) => {
    const colour = getComputedStyle(element).backgroundColor, parts = numbers(colour);
    if (parts.length === 3 || parts[3] === 1) return colour;
    return element.parentElement ? painted(element.parentElement) : "rgb(255, 255, 255)";
  };
  return [...document.body.querySelectorAll("*")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((element) => element.checkVisibility() && !["STYLE", "METER"].includes(element.tagName))
    .map((element) => {
      const style = getComputedStyle(element), size = parseFloat(style.fontSize);
      const colour = element instanceof SVGElement ? style.fill : style.color;
      const [low, high] = [light(colour), light(painted(element))].sort((one, other) => one - other);
      const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      return {ratio: (high + 0.05) / (low + 0.05), wanted, what: element.tagName + ": " + element.textContent.trim()};
    })
    .filter((found) => found.ratio < found.wanted)
    .map((found) => found.ratio.toFixed(2) + " " + found.what.slice(0, 60));
})()"""

# What a person must be able to reach: links, controls, and whatever scrolls on its own.
MARK_INTERACTIVE = """(() => {
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    && element.scrollWidth > element.clientWidth;
  const all = [...document.querySelectorAll("body *")].filter((element) =>
    element.matches("a[href], summary, button, input, select, textarea, [tabindex]") || scrolls(element));
  const shown = all.filter((element) => element.checkVisibility());
  shown.forEach((element, place) => { element.dataset.place = place; });
  return shown.length;
})()"""
FOCUSED = """(() => {
  const element = document.activeElement, style = getComputedStyle(element);
  return [element.dataset.place ?? "", style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0];
})()"""
BROKEN_PICTURES = "[...document.images].filter((image) => !(image.complete && image.naturalWidth)).length"


@dataclass
class Tab:
    """A tab of a real browser, driven through the DevTools protocol.

    Args:
        complaints: what a person would see in the console: errors, warnings, failed loads, refused content.
        requests: what the page asked for beside itself.
    """

    socket: ClientConnection
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _sent: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters, "sessionId": self.session}
        self.socket.send(json.dumps({key: value for key, value in message.items() if value != ""}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_SECONDS))
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def evaluate(self, script: str) -> Any:
        """The value of a script, awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path: Path, width: int, scheme: str) -> None:
        """Show a file as a screen so many pixels wide would, in the light or dark scheme, pictures loaded."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.complaints.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + PATIENCE_SECONDS
        loaded = f"document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}"
        while not self.evaluate(loaded) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.evaluate(
            "Promise.allSettled([...document.images].map((image) => (image.loading = 'eager', image.decode())))"
        )

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13}
        what = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **what, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded":
                self.complaints.append(about["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Network.loadingFailed":
                self.complaints.append(json.dumps(about))
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A tab of headless Chromium; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("looks at the page in a browser, and Chromium is not installed (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with connect(_address(profile, process), max_size=None) as socket:
            browser = Tab(socket, "")
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            opened = Tab(socket, session, _sent=100)
            for domain in ("Page", "Runtime", "Log", "Network"):
                opened.call(f"{domain}.enable")
            yield opened
    finally:
        process.kill()
        process.wait()


def _address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the browser listens: it writes port and path into its profile once it does."""
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = port_file.read_text().split() if port_file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    pytest.fail(f"Chromium did not start: {(profile / 'log').read_text()[-2000:]}")


def check_page(tab: Tab, page: Path) -> None:
    """No complaint, no broken picture, no horizontal scroll, enough contrast, nothing out of the keyboard's reach."""
    for width in (PHONE_PX, DESK_PX):
        for scheme in ("light", "dark"):
            tab.open(page, width, scheme)
            assert tab.complaints == []
            assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]
            assert tab.evaluate("document.images.length") > 0
            assert tab.evaluate(BROKEN_PICTURES) == 0
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
            assert tab.evaluate(TOO_FAINT) == []
    is_dark = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(is_dark)
    tab.open(page, PHONE_PX, "light")
    assert tab.evaluate(is_dark) != dark
    _check_keyboard(tab)
    tab.evaluate("document.querySelector('summary').focus()")
    tab.press("Enter")
    assert tab.evaluate("document.querySelector('details').open") is True
    assert tab.complaints == []


def _check_keyboard(tab) -> None:
    """Tab alone reaches whatever can be used, in the order of the page, each with a visible outline."""
    count = tab.evaluate(MARK_INTERACTIVE)
    reached = []
    for _ in range(count):
        tab.press("Tab")
        place, outlined = tab.evaluate(FOCUSED)
        assert outlined, f"no outline around element {place}"
        reached.append(place)
    assert reached == [str(place) for place in range(count)]
