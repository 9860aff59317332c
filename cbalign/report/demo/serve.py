"""Starts the page of a model and serves it until it is interrupted."""

from __future__ import annotations

import importlib.resources
import ipaddress
import os
import pathlib
import signal
import socket
import sys
import tempfile

from cbalign.errors import UserError
from cbalign.inference import Encoder, open_source
from cbalign.report.demo.answers import Answers
from cbalign.report.demo.guard import MAX_UPLOAD, Guard
from cbalign.report.demo.images import open_images
from cbalign.report.demo.sets import rendered_set

LOOPBACK = "127.0.0.1"
PORT = 7860
_PORTS_TRIED = 100


def serve(
    weights: str,
    *,
    checkpoint: str = "best",
    images: os.PathLike | str | None = None,
    host: str = LOOPBACK,
    port: int | None = None,
    progress=None,
) -> None:
    """Serves the page of a model; returns when the server is told to stop.

    Args:
      weights, checkpoint: see `open_source`.
      images: folder to search; None for a set that is rendered.
      host: address to listen on.
      port: 0 for any free one; None for the first free one from `PORT` on.
      progress: called as progress(done, total) while images are read.

    Raises:
      UserError: there is no such model, folder or address, or the port is taken.
    """
    # Before anything takes time, and before the framework reads its environment.
    listening = bind(host, port)
    with listening, tempfile.TemporaryDirectory(prefix="cbalign-demo-") as temporary:
        folder = pathlib.Path(temporary)
        _set_environment(folder)
        source = open_source(weights, checkpoint=checkpoint)
        encoder = Encoder.of(source) if source.task.shares_embedding_space else None
        if images is None:
            images, what = rendered_set(source.task.config.data.name)
        else:
            # Its name alone: visitors need not know where it lies.
            what = os.fsencode(pathlib.Path(images).resolve().name).decode(errors="replace")
        shown = open_images(images, encoder=encoder, cache=source.cache, progress=progress)
        for note in shown.notes:
            print(f"cbalign: {note}", file=sys.stderr)
        # A mixture names its parts as in icons*0.6+emoji*4.
        trained_on = [part.partition("*")[0].strip() for part in source.task.config.data.name.split("+")]
        facts = [
            f"task {source.task.name}, trained on {', '.join(trained_on)}",
            f"sees {source.task.config.data.image_size} pixels a side",
            f"{len(shown):,} images: {what}",
        ]
        _run(Answers(source, encoder, shown), pathlib.Path(source.name).name, facts, folder, listening)


def bind(host: str, port: int | None) -> socket.socket:
    """A socket that is bound to an address; see `serve`.

    Raises:
      UserError: there is no such address, or the port is taken.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UserError(f"--port={port} is no port; name one from 1 to 65535, or 0 for any that is free")
    ports = range(PORT, PORT + _PORTS_TRIED) if port is None else (port,)
    for number in ports:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError, OverflowError) as error:
            raise UserError(f"--host={host} is no address of this machine ({error}); leave it out") from error
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            listening.close()
            if error.errno in (98, 48):
                continue
            raise UserError(f"{host}:{number} cannot be listened on ({error.strerror}); name another one") from error
        return listening
    which = f"port {port} is" if port is not None else f"ports {PORT} to {PORT + _PORTS_TRIED - 1} are"
    raise UserError(f"{which} taken; name another one with --port, or 0 for any that is free")


def is_loopback(host: str) -> bool:
    """Whether an address that a socket is bound to can be reached from this machine alone."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _set_environment(folder: pathlib.Path) -> None:
    """Keeps the framework's files in a folder of this process, and the framework off the network."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_EXAMPLES_CACHE=str(folder / "examples"),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_SHARE="False",
        GRADIO_MCP_SERVER="False",
        GRADIO_SSR_MODE="False",
        HF_HUB_OFFLINE="1",
    )
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH"):
        os.environ.pop(name, None)


def _run(answers: Answers, title: str, facts: list[str], folder: pathlib.Path, listening: socket.socket) -> None:
    import fastapi
    import gradio as gr
    import uvicorn

    from cbalign.report.demo.page import build_page, theme

    page = build_page(answers, title=title, facts=facts, folder=folder)
    # The framework checks the files that an event names only where it believes it has started the server itself.
    page.has_launched = True
    app = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        allowed_paths=[],
        max_file_size=MAX_UPLOAD,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        footer_links=[],
        pwa=False,
        theme=theme(),
        css=importlib.resources.files("cbalign.report.demo").joinpath("style.css").read_text(encoding="utf-8"),
    )
    host, port = listening.getsockname()[:2]
    local = is_loopback(host)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(f"http://{_url_host(host)}:{port}/", flush=True)
            if not local:
                print(
                    f"cbalign: whoever can reach port {port} of this machine can see the images and use the model; "
                    "there is no password. Leave out --host to serve this machine alone",
                    file=sys.stderr,
                )

    config = uvicorn.Config(
        Guard(app, files=folder, local=local), log_level="warning", timeout_graceful_shutdown=1, ws="none"
    )
    # The server ends by the signal that stopped it: let it come out here, so that the folder is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    Server(config).run(sockets=[listening])


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
