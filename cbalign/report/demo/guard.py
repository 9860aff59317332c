"""What stands between the network and the page: only what the page needs is let through.

The framework serves more than this page uses (proxies, uploads by address, an API, files by path). A request passes if
its path is one the page asks for, it is meant for this server, its body is small enough, and every file it names is one
the page itself has put into its own folder.
"""

from __future__ import annotations

import ipaddress
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

MAX_UPLOAD = 20 << 20
"""Bytes of an uploaded image."""
MAX_REQUEST = 256 << 10
"""Bytes of any other request; a query of 10,000 characters takes 120 KB at most."""

_API = "/gradio_api"
_FILES = f"{_API}/file="
_UPLOAD = f"{_API}/upload"
_EVENTS = f"{_API}/queue/join"
_PAGE = re.compile(
    r"/|/(assets|static)/[\w./@+-]+|/(theme\.css|favicon\.ico|manifest\.json|config)"
    rf"|{_API}/(startup-events|upload_progress|queue/data|heartbeat/\w+|app_id)"
)
_POSTS = (_UPLOAD, _EVENTS, f"{_API}/reset", f"{_API}/cancel")
# Nothing is loaded from, or sent to, another address. The framework's templates need inline scripts and eval.
_POLICY = (
    b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
    b"form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware around the page's application.

    Args:
      app: the application.
      files: the folder whose files may be fetched: what was uploaded, and what the page has made.
      local: whether the server is bound to this machine alone. Then requests must name it by a local name, so that no
        web page elsewhere can reach it through a name that it points here.
    """

    def __init__(self, app: Any, *, files: pathlib.Path, local: bool):
        self._app, self._files, self._local = app, files.resolve(), local

    async def __call__(self, scope, receive, send) -> None:
        """Passes a request on, or answers it with a refusal."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope, receive, send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status = self._refusal(scope["method"], scope["path"], headers)
        if status:
            await _refuse(send, status)
            return
        started = False

        async def answer(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {name for name, _ in _HEADERS}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        try:
            if scope["method"] != "POST":
                await self._app(scope, receive, answer)
            elif scope["path"] == _UPLOAD:
                await self._app(scope, _limited(receive, MAX_UPLOAD + MAX_REQUEST), answer)
            else:
                body = await _whole(_limited(receive, MAX_REQUEST))
                if scope["path"] == _EVENTS and not self._names_own_files(body):
                    await _refuse(send, 403)
                    return
                await self._app(scope, _replay(body, receive), answer)
        except _TooLargeError:
            if not started:
                await _refuse(send, 413)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> int:
        """The status to refuse a request with by its first lines; 0 to let it pass."""
        host = headers.get("host", "")
        if self._local and not _is_local(host):
            return 421
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403
        if method == "POST":
            limit = MAX_UPLOAD + MAX_REQUEST if path == _UPLOAD else MAX_REQUEST
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > limit:
                return 413
            return 0 if path in _POSTS else 404
        if method not in ("GET", "HEAD"):
            return 405
        if path.startswith(_FILES):
            return 0 if self._is_own(path.removeprefix(_FILES)) else 403
        return 0 if _PAGE.fullmatch(path) and ".." not in path else 404

    def _is_own(self, name: Any) -> bool:
        """Whether a path is one of a file in the page's folder, links followed."""
        if not isinstance(name, str) or not name.startswith("/") or "\0" in name:
            return False
        try:
            # It need not exist yet: an upload is moved to its place after it has been answered.
            return pathlib.Path(name).resolve().is_relative_to(self._files)
        except (OSError, RuntimeError, ValueError):
            return False

    def _names_own_files(self, body: bytes) -> bool:
        """Whether all files that an event names are the page's own; an address is none."""
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return all(self._is_own(path) for path in _paths(event))


class _TooLargeError(Exception):
    """More bytes came than the request may have."""


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine by a name that no one else can point here."""
    name = re.sub(r":\d+$", "", host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _paths(value: Any) -> Iterator[Any]:
    """What stands under "path" anywhere in a JSON value."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if "path" in current:
                yield current["path"]
            pending += current.values()
        elif isinstance(current, list):
            pending += current


def _limited(receive, limit: int):
    """A `receive` that raises once more than `limit` bytes of the body have come."""
    seen = 0

    async def limited():
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _TooLargeError
        return message

    return limited


async def _whole(receive) -> bytes:
    """The body of a request."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive):
    """A `receive` that hands out a body that was read already, and then what comes."""
    given = False

    async def replay():
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send, status: int) -> None:
    body = b"refused\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
