"""A server for a page on this machine: nothing that it does or shows needs the network outside."""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_jax.errors import InputError

if TYPE_CHECKING:
    import gradio

UPLOAD = "500mb"  # largest file of a visitor
# The browser refuses to load anything that is not from this server. The page has scripts and styles inside it.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


@contextlib.contextmanager
def open_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket that the page is served on.

    Args:
        host: name or address of the network interface.
        port: 0 to 65535; 0: any that is free.

    Raises:
        InputError: the port is out of range or taken, or the host is not an interface of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}; it must be between 1 and 65535, or 0 for any that is free")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is longer than any host's
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"port {port} of {host} cannot be opened ({reason}); give another --port, 0 for any that is free, or "
            "another --host"
        ) from error
    with opened:
        yield opened


def is_loopback(opened: socket.socket) -> bool:
    """Return whether only programs of this machine can reach a socket."""
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback


def format_url(opened: socket.socket) -> str:
    """Return the address of the page that is served on a socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def work_offline() -> Iterator[Path]:
    """Keep Gradio from asking hosts outside, and give it a temporary folder for the files of visitors.

    Import Gradio in this block. The folder is removed when the block ends, also by SIGTERM, and by SIGHUP, with which a
    terminal ends.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the status that a shell gives it
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # ignored under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="fcn_jax-demo-") as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
        yield Path(folder)


def serve(page: "gradio.Blocks", opened: socket.socket, style: str) -> None:
    """Serve a page until a signal ends the process.

    Args:
        page: the page.
        opened: from `open_socket`.
        style: its style sheet.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        css=style,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        max_file_size=UPLOAD,
    )
    page.has_launched = True  # otherwise Gradio reads any file of this machine whose path a visitor sends
    app.add_middleware(_Policy)
    if is_loopback(opened):  # a page of another site must not reach this one under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", opened.getsockname()[0], "[::1]"])
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[opened])


class _Policy:
    """An ASGI application that adds `POLICY` to the answers of another one."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_policy(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, send_with_policy)
