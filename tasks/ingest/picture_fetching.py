"""Pictures from URLs, fetched so that a catalog can't make this machine ask what it should not.

Each address is resolved once, checked, and connected to as checked (a name that resolves differently a moment later
changes nothing), for the first URL and for every redirect. Bytes, seconds, schemes and redirects are limited.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import SplitResult, urljoin, urlsplit

from storage.picture_checks import PictureError
from tasks.ingest.config import PictureConfig

TRANSIENT = "fetch_failed"  # worth another try in the next run; all other kinds are final for their URL

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 64 * 1024
_HEADERS = {"User-Agent": "dmesr-ingest/1", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}
_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch_picture(url: str, config: PictureConfig) -> bytes:
    """Return the bytes at `url`.

    Raises PictureError of kind `fetch_failed` (unreachable, timed out, server error: try again later), `bad_url`,
    `address_refused`, `http_error`, `too_many_redirects` or `too_many_bytes`.
    """
    deadline = time.monotonic() + config.seconds
    for _ in range(config.max_redirects + 1):
        target, content = _fetch_once(url, config, deadline)
        if target is None:
            return content
        url = _joined(url, target)
    raise PictureError("too_many_redirects", f"over {config.max_redirects} redirects (ingest.pictures.max_redirects)")


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise PictureError("bad_url", f"a redirect to {target[:200]!r}: {error}") from error


def _fetch_once(url: str, config: PictureConfig, deadline: float) -> tuple[str | None, bytes]:
    """Return a redirect's target, or None and the content."""
    parts = _checked_url(url, config)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    address = _checked_address(host, port, config.allow_private_addresses)
    too_slow = PictureError(TRANSIENT, f"{url}: not done within {config.seconds:g} s (ingest.pictures.seconds)")
    try:
        with _connected(parts.scheme, host, address, port, deadline) as connection:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", _ascii(path), headers={**_HEADERS, "Host": parts.netloc})
            answer = _answer(connection.getresponse(), config)
        if time.monotonic() >= deadline:  # a connection that was cut off looks like one that ended
            raise TimeoutError
        return answer
    except TimeoutError as error:
        raise too_slow from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        if time.monotonic() >= deadline:
            raise too_slow from error
        raise PictureError(TRANSIENT, f"{url}: {str(error) or type(error).__name__}") from error


def _answer(response: http.client.HTTPResponse, config: PictureConfig) -> tuple[str | None, bytes]:
    if response.status in _REDIRECTS and (target := response.headers.get("Location")):
        return target, b""
    if response.status == 429 or response.status >= 500:
        raise PictureError(TRANSIENT, f"the server answered {response.status} {response.reason}")
    if response.status != 200:
        raise PictureError("http_error", f"the server answered {response.status} {response.reason}; correct the URL")
    return None, _body(response, config.limits.max_bytes)


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    too_long = PictureError("too_many_bytes", f"over {max_bytes:,} bytes")
    if response.length is not None and response.length > max_bytes:
        raise too_long
    content = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise too_long
    if response.length:
        raise http.client.IncompleteRead(bytes(content[:16]), response.length)
    return bytes(content)


def _checked_url(url: str, config: PictureConfig) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PictureError("bad_url", f"{url[:200]!r}: {error}") from error
    if parts.scheme not in config.schemes:
        allowed = ", ".join(config.schemes)
        raise PictureError("bad_url", f"{url[:200]!r}: scheme {parts.scheme!r} is not among {allowed}")
    if not parts.hostname or port == 0 or any(character <= " " for character in url):
        raise PictureError("bad_url", f"{url[:200]!r} is no URL of a host")
    if parts.username is not None or parts.password is not None:
        raise PictureError("bad_url", "the URL holds a user name or password; picture URLs must need none")
    return parts


def _checked_address(host: str, port: int, allow_private: bool) -> str:
    """Return one address of the host. Each address that the name resolves to must be allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PictureError(TRANSIENT, f"the name {host!r} can't be resolved: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not is_public(address):
            raise PictureError(
                "address_refused",
                f"{host} is at {address}, which is not public; ingest.pictures.allow_private_addresses allows it",
            )
    return addresses[0]


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet, also where it is wrapped in an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return all(part.is_global and not part.is_multicast for part in _unwrapped(parsed))


def _unwrapped(address: Address) -> Iterator[Address]:
    yield address if not isinstance(address, ipaddress.IPv6Address) or not address.ipv4_mapped else address.ipv4_mapped
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@contextlib.contextmanager
def _connected(
    scheme: str, host: str, address: str, port: int, deadline: float
) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection to the checked address, cut off at the deadline whatever it is doing."""
    seconds = max(deadline - time.monotonic(), 0.001)
    with contextlib.closing(socket.create_connection((address, port), timeout=seconds)) as plain:
        # Time-outs of a socket count from byte to byte: a server that drips would hold us for hours without this.
        cut = threading.Timer(max(deadline - time.monotonic(), 0.001), _cut, (plain,))
        cut.daemon = True
        cut.start()
        try:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = _secured(plain, host) if scheme == "https" else plain
            with contextlib.closing(connection):
                yield connection
        finally:
            cut.cancel()


def _secured(plain: socket.socket, host: str) -> socket.socket:
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)


def _ascii(path: str) -> str:
    """Return a URL's path with all that is not ASCII as percent escapes."""
    return "".join(letter if letter.isascii() else _escaped(letter) for letter in path)


def _escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())
