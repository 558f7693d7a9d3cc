"""A shop with everything that the page shows, and a browser to open the page with."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from storage.pictures import PictureStore
from storage.schemas import REJECTS
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.recommend import RecommendConfig, RecommendStage
from tasks.stage import run_stage

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
EVALUATE, RECOMMEND = EvaluateConfig(), RecommendConfig(k=5)
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


@pytest.fixture
def reported_shop(lively_shop, small_models):
    picture = lively_shop.work_folder / "one.png"
    lively_shop.work_folder.mkdir()
    Image.new("RGB", (300, 200), (200, 40, 40)).save(picture)
    reference, digest = PictureStore(lively_shop.store).save(picture.read_bytes())
    lively_shop.put_items(
        {"item_id": "i00", "title": HOSTILE, "picture": digest, "reference": reference},
        {"item_id": "i03", "title": "gone", "picture": "0" * 32},  # its bytes are nowhere
    )
    lively_shop.put_answers(("i03", "image", HOSTILE, "refusal"))
    row = {"stage": "ingest", "source": "catalog.jsonl", "row": 7, "reason": "duplicate_id", "detail": HOSTILE}
    lively_shop.store.table(REJECTS).append(lively_shop._frame(REJECTS, [row]))
    lively_shop.pretend_to_train(small_models)
    places = (small_models, lively_shop.describe, lively_shop.embed, lively_shop.store, lively_shop.work_folder)
    run_stage(EvaluateStage(EVALUATE, *places), lambda progress: None)
    run_stage(RecommendStage(RECOMMEND, *places), lambda progress: None)
    return lively_shop


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


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A tab of headless Chromium; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
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
