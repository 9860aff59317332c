"""The guard before an application that answers everything: what comes through, and what does not."""

import asyncio
import json
import threading

import pytest

from cbalign.report.demo.guard import MAX_REQUEST, MAX_UPLOAD, Guard

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


def run(coroutine):
    """In a thread of its own: this one may have an event loop."""
    thread = threading.Thread(target=asyncio.run, args=(coroutine,))
    thread.start()
    thread.join()


def ask(files, path="/", method="GET", *, body=b"", local=True, parts=1, **headers):
    """(status, headers, what the application received or None) of a request."""
    received = []

    async def application(scope, receive, send):
        more = True
        while more:
            message = await receive()
            received.append(message["body"])
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Content-Type-Options", b"no")]})
        await send({"type": "http.response.body", "body": b"answer"})

    size = -(-len(body) // parts) or 1
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    messages = iter(
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)} for i, piece in enumerate(pieces)
    )
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    headers = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    run(Guard(application, files=files, local=local)(scope, receive, send))
    return sent[0]["status"], sent[0]["headers"], b"".join(received) if received else None


def status(*arguments, **options):
    return ask(*arguments, **options)[0]


@pytest.fixture
def files(tmp_path):
    """The page's folder, with a file, a link that leads out of it, and a neighbour of a longer name."""
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"image")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "files2").mkdir()
    (tmp_path / "files2" / "b.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(tmp_path / "secret")
    return root


@pytest.mark.parametrize(
    "path",
    ["/", "/theme.css", "/config", "/assets/index-DphvyggB.js", "/static/js/iframeResizer.min.js", "/favicon.ico"],
)
def test_the_page_is_served(files, path):
    assert status(files, path) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/login",
        "/gradio_api/info",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/call/search",
        "/gradio_api/stream/1",
        "/gradio_api/component_server",
        "/assets/../../secret",
        "/static/..",
        "/assets/",
        "//",
        "",
    ],
)
def test_nothing_else_is_served(files, path):
    assert status(files, path) == 404
    assert status(files, path, "POST") == 404


def test_only_files_of_the_page_are_served(files):
    at = "/gradio_api/file="
    assert status(files, f"{at}{files}/a.jpg") == 200
    refused = [
        f"{files}/link.jpg",
        f"{files}/../secret",
        f"{files.parent}/secret",
        f"{files}2/b.jpg",
        "secret",
        "a.jpg",
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "http://example.com/a.jpg",
        "file:///etc/passwd",
        f"{files}/a.jpg\0",
        "",
    ]
    assert [name for name in refused if status(files, at + name) != 403] == []


def test_an_event_names_files_of_the_page_alone(files):
    def join(value):
        return ask(files, JOIN, "POST", body=json.dumps(value).encode())

    fine = {"data": [{"path": f"{files}/new/upload.png", "meta": {}}, "a text", None, 3], "fn_index": 1}
    code, _, received = join(fine)
    assert code == 200 and json.loads(received) == fine
    for path in (
        "/etc/passwd",
        f"{files}/link.jpg",
        f"{files}/../secret",
        "http://10.0.0.1/x.png",
        "a.png",
        7,
        None,
        [],
    ):
        assert join({"data": [{"path": path}]})[::2] == (403, None)
        assert join({"data": [["deep", {"value": {"image": {"path": path}}}]]})[::2] == (403, None)
    for body in (b"", b"{", b"[" * 100_000, b"\xff"):
        assert ask(files, JOIN, "POST", body=body)[::2] == (403, None)


@pytest.mark.parametrize("path, limit", [(JOIN, MAX_REQUEST), (UPLOAD, MAX_UPLOAD + MAX_REQUEST)])
@pytest.mark.parametrize("parts", [1, 7])
def test_large_bodies_are_refused_whether_announced_or_not(files, path, limit, parts):
    body = b'["' + b"x" * (limit - 4) + b'"]'
    assert status(files, path, "POST", body=body, parts=parts) == 200
    assert status(files, path, "POST", body=body + b" ", parts=parts) == 413
    assert status(files, path, "POST", body=b"[]", content_length=str(limit + 1)) == 413
    assert status(files, path, "POST", body=b"[]", content_length="-1") == 413


def test_names_and_origins_of_others_are_refused(files):
    for host in ("localhost:7860", "127.0.0.1", "127.8.9.1:1", "[::1]:7860"):
        assert status(files, host=host) == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:7860", "", "localhost.evil", "[", "@localhost"):
        assert status(files, host=host) == 421, host
        assert status(files, host=host, local=False) == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:7860.evil"):
        assert status(files, origin=origin) == 403
    assert status(files, origin="http://127.0.0.1:7860") == 200


def test_every_answer_forbids_other_addresses(files):
    for path in ("/", "/docs"):
        headers = dict(ask(files, path)[1])
        assert headers[b"content-security-policy"].startswith(b"default-src 'self' ")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert len(ask(files, path)[1]) == len({name.lower() for name, _ in ask(files, path)[1]})


def test_other_methods_and_websockets_are_refused(files):
    assert {status(files, "/", method) for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")} == {405}
    sent = []

    async def send(message):
        sent.append(message)

    run(Guard(None, files=files, local=True)({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
