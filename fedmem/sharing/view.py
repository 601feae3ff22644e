"""`fedmem view`: a server on the loopback address that shows the index of many runs and their pages.

It answers GET and HEAD, and only requests that name its own address as their host. So no web site can reach it through
a name of its own (DNS rebinding). It serves files of a few types inside one folder, and follows no link.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from fedmem.errors import ComponentError, FolderError
from fedmem.reporting.rendering import content_policy
from fedmem.sharing.index_page import index_page

LOOPBACK = "127.0.0.1"

TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png"}
"""Endings of files that are served -> their type."""

NAMES = {"summary.json": "application/json", "scenario.yaml": "text/plain; charset=utf-8"}
"""Further files that are served -> their type."""

_CHUNK = 1 << 20


class ViewServer(ThreadingHTTPServer):
    """The server of one folder. `serve_forever` runs until Ctrl-C; `server_close` frees the port.

    Args:
        folder: The folder whose runs are shown.
        port: The port; 0 for a free one.

    Errors: `FolderError` where there is no such folder, `ComponentError` where the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, folder: Path | str, port: int = 0) -> None:
        self.root = Path(folder).resolve()
        if not self.root.is_dir():
            raise FolderError(f"there is no folder {folder}; fedmem run makes runs/NAME/ID")
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ComponentError(
                "--port", f"port {port} cannot be used: {error}; choose another, or leave it out for a free one"
            ) from error
        names = (LOOPBACK, "localhost")
        without_port = names if self.server_port == 80 else ()  # browsers leave this port out
        self.hosts = frozenset((*(f"{name}:{self.server_port}" for name in names), *without_port))

    @property
    def url(self) -> str:
        """The address of the index."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection early is no error."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ViewServer
    timeout = 10.0
    server_version, sys_version = "fedmem", ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is logged."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error is one line of text, and repeats nothing of the request."""
        self._send(code, f"{code} {HTTPStatus(code).phrase}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            return self.send_error(HTTPStatus.FORBIDDEN)
        path = self.path.partition("?")[0]
        if path == "/":
            return self._send(HTTPStatus.OK, index_page(self.server.root), TYPES[".html"])
        file, content_type = open_served(self.server.root, path)
        if file is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        with file:
            size = os.fstat(file.fileno()).st_size
            self._send_head(HTTPStatus.OK, size, content_type)
            while self.command == "GET" and size > 0 and (data := file.read(min(_CHUNK, size))):
                size -= len(data)
                self.wfile.write(data)
        return None

    def _send(self, code: int, body: bytes, content_type: str) -> None:
        self._send_head(code, len(body), content_type)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, code: int, size: int, content_type: str) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(size),
            "Content-Security-Policy": f"{content_policy()}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()


def open_served(root: Path, path: str) -> tuple[BinaryIO | None, str]:
    """The file of a request below `root`, opened, and its type; None where nothing is served there.

    Args:
        root: The folder, resolved.
        path: The path of the request, which begins with a slash, percent-encoded and without a query.
    """
    try:
        parts = unquote(path, errors="strict").split("/")
    except UnicodeDecodeError:
        return None, ""
    content_type = NAMES.get(parts[-1]) or TYPES.get(Path(parts[-1]).suffix, "")
    if parts[0] or not content_type or not all(_is_harmless(part) for part in parts[1:]):
        return None, ""
    file = root.joinpath(*parts[1:])
    try:
        is_link = file.resolve() != file
        return (None, "") if is_link or not file.is_file() else (file.open("rb"), content_type)
    except (OSError, ValueError):
        return None, ""


def _is_harmless(part: str) -> bool:
    """Whether a piece of a path names something inside a folder, on every system, and nothing hidden.

    >>> [_is_harmless(part) for part in ("quickstart", "..", "", ".git", "a\\\\b", "c:")]
    [True, False, False, False, False, False]
    """
    return bool(part) and part[0] != "." and part.isprintable() and not set(part) & {"/", "\\", ":"}
