import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storage.picture_checks import PictureError, PictureLimits
from tasks.ingest import picture_fetching
from tasks.ingest.config import PictureConfig
from tasks.ingest.picture_fetching import fetch_picture, is_public

LOCAL = PictureConfig(fetch=True, allow_private_addresses=True, seconds=5)


class Answers(BaseHTTPRequestHandler):
    """A server whose paths misbehave as they are named."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        name = self.path.partition("?")[0]
        if name == "/fine":
            self._send(200, b"picture")
        elif name.startswith("/hop"):
            left = int(name[4:])
            self._send(302, b"", Location=f"/hop{left - 1}" if left else "/fine")
        elif name == "/to":
            self._send(302, b"", Location=self.path.partition("?")[2])
        elif name == "/large":
            self._send(200, b"x" * 5000)
        elif name == "/endless":
            self.send_response(200)
            self.end_headers()
            self._drip(b"x" * 1000, 0)
        elif name == "/drip":
            self.send_response(200)
            self.end_headers()
            self._drip(b"x", 0.05)
        elif name == "/drip_header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            self._drip(b"x", 0.05)
        elif name == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"short")
        elif name == "/nonsense":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        else:
            self._send(int(name[1:]), b"")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, piece: bytes, pause: float) -> None:
        try:
            for _ in range(2000):
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass  # the client has hung up, as it should

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    server.asked.clear()
    return f"http://127.0.0.1:{server.server_port}"


def kind_of(url: str, config: PictureConfig = LOCAL) -> str:
    with pytest.raises(PictureError) as error:
        fetch_picture(url, config)
    return error.value.kind


def test_a_picture_is_fetched(url, server):
    assert fetch_picture(f"{url}/fine?size=é 1".replace(" ", "%20"), LOCAL) == b"picture"
    assert server.asked == [("/fine?size=%C3%A9%201", url.removeprefix("http://"))]


def test_redirects_are_followed_so_far(url):
    assert fetch_picture(f"{url}/hop2", LOCAL) == b"picture"  # hop2, hop1, hop0, fine: 3 redirects
    assert kind_of(f"{url}/hop3") == "too_many_redirects"


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/404", "http_error"),
        ("/403", "http_error"),
        ("/500", "fetch_failed"),
        ("/503", "fetch_failed"),
        ("/429", "fetch_failed"),
        ("/short", "fetch_failed"),
        ("/nonsense", "fetch_failed"),
    ],
)
def test_answers_that_are_no_picture(url, path, kind):
    assert kind_of(url + path) == kind


def test_bytes_are_limited_told_or_not(url, server):
    small = LOCAL.model_copy(update={"limits": PictureLimits(max_bytes=4096)})
    assert kind_of(f"{url}/large", small) == "too_many_bytes"
    assert kind_of(f"{url}/endless", small) == "too_many_bytes"


@pytest.mark.parametrize("path", ["/drip", "/drip_header"])
def test_seconds_are_limited_however_slowly_it_drips(url, path):
    start = time.monotonic()
    assert kind_of(url + path, LOCAL.model_copy(update={"seconds": 0.4})) == "fetch_failed"
    assert time.monotonic() - start < 3


def test_a_server_that_is_not_there(url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert kind_of(f"http://127.0.0.1:{unused.getsockname()[1]}/fine") == "fetch_failed"


@pytest.mark.parametrize(
    "bad",
    ["ftp://x.example/a", "file:///etc/passwd", "http://", "http://user:word@x.example/", "http://x.example:99999/"],
)
def test_urls_that_are_refused(bad):
    assert kind_of(bad) == "bad_url"


def test_schemes_are_limited_on_redirects_too(url):
    assert kind_of(f"{url}/to?file:///etc/passwd") == "bad_url"
    assert kind_of(f"{url}/to?http://[broken/") == "bad_url"
    assert kind_of(f"{url}/fine", LOCAL.model_copy(update={"schemes": ("https",)})) == "bad_url"


def test_addresses_that_are_not_public_are_refused(url, server):
    config = PictureConfig(fetch=True)
    for host in (f"127.0.0.1:{server.server_port}", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"):
        assert kind_of(f"http://{host}/fine", config) == "address_refused"
    assert kind_of(f"http://{2130706433}/fine", config) == "address_refused"  # 127.0.0.1 as one number
    assert server.asked == []


def test_a_redirect_to_a_private_address_is_refused(url, server, monkeypatch):
    """The first host is public by name; it leads to this machine by redirect."""
    monkeypatch.setattr(picture_fetching, "is_public", lambda address: server.asked == [])
    config = PictureConfig(fetch=True)
    assert kind_of(f"{url}/hop0", config) == "address_refused"
    assert [path for path, _ in server.asked] == ["/hop0"]


def test_the_checked_address_is_the_one_connected_to(server, monkeypatch):
    """A name that leads to this server when it is checked, and to another address when it is asked for again."""
    resolve = socket.getaddrinfo
    asked_for = []

    def rebinding(host: str, *arguments: object, **settings: object) -> object:
        asked_for.append(host)
        if host != "rebound.example":
            return resolve(host, *arguments, **settings)
        address = "127.0.0.1" if asked_for.count(host) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.server_port))]

    monkeypatch.setattr(picture_fetching.socket, "getaddrinfo", rebinding)
    server.asked.clear()
    assert fetch_picture(f"http://rebound.example:{server.server_port}/fine", LOCAL) == b"picture"
    assert server.asked == [("/fine", f"rebound.example:{server.server_port}")]
    assert asked_for.count("rebound.example") == 1


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(picture_fetching.socket, "getaddrinfo", lambda *_, **__: found)
    assert kind_of("http://mixed.example/", PictureConfig(fetch=True)) == "address_refused"


@pytest.mark.parametrize(
    "address, public",
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("2002:a00:1::", False),  # 6to4 of 10.0.0.1
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_ingest_fetches_once_and_tries_again_what_failed_for_a_passing_reason(shop, url, server):
    shop.catalog(
        {"item_id": "fine", "image": f"{url}/fine"},
        {"item_id": "lost", "image": f"{url}/404"},
        {"item_id": "busy", "image": f"{url}/503"},
    )
    settings = {"pictures": LOCAL.model_dump()}
    assert shop.plan(**settings).new == 3
    assert server.asked == []  # a plan fetches nothing
    shop.ingest(**settings)
    assert shop.rejects() == [
        (1, "image", "fine", "picture_not_a_picture"),
        (2, "image", "lost", "picture_http_error"),
        (3, "image", "busy", "picture_fetch_failed"),
    ]
    plan = shop.plan(**settings)
    assert (plan.new, plan.changed, plan.failed_before) == (0, 0, 1)
    server.asked.clear()
    shop.ingest(**settings)
    assert [path for path, _ in server.asked] == ["/503"]
    assert len(shop.rejects()) == 3
