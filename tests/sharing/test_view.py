"""The server answers this machine alone, and serves files of a few types inside one folder. Requests are raw bytes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmem.errors import ComponentError, FolderError
from fedmem.reporting.rendering import content_policy
from fedmem.sharing.view import ViewServer, open_served
from tests.results.read_helpers import write

SECRET = b"all my secrets"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ViewServer]:
    """A server of `runs`, with files beside and in it that must not be served."""
    root = tmp_path / "runs"
    write(root / "small" / "0123")
    for name, data in {"report.html": b"<p>page</p>", "a b.png": b"png", "summary.json": b"{}"}.items():
        (root / "small" / "0123" / name).write_bytes(data)
    for place in ("secret.html", "runs/.hidden.html", "runs/.git/x.html", "runs/small/0123/examples.json"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(SECRET)
    (root / "link.html").symlink_to(tmp_path / "secret.html")
    (root / "up").symlink_to(tmp_path)
    (root / "inside.html").symlink_to(root / "small" / "0123" / "report.html")
    (root / "folder.html").mkdir()
    os.mkfifo(root / "pipe.html")
    with ViewServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ViewServer, line: str, *headers: str, host: str = "") -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of the answer to raw lines."""
    host = host or f"127.0.0.1:{server.server_port}"
    lines = [line, *([f"Host: {host}"] if host != "-" else []), *headers, "", ""]
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    status, *rest = head.decode().split("\r\n")
    return int(status.split()[1]), dict(one.split(": ", 1) for one in rest), body


def test_index_and_pages_are_served_with_the_policy_of_reports(server: ViewServer) -> None:
    for path, kind, text in (
        ("/", "text/html; charset=utf-8", b'href="small/0123/report.html"'),
        ("/?a=../b", "text/html; charset=utf-8", b"</html>"),
        ("/small/0123/report.html", "text/html; charset=utf-8", b"<p>page</p>"),
        ("/small/0123/report.html?x#y", "text/html; charset=utf-8", b"<p>page</p>"),
        ("/small/0123/a%20b.png", "image/png", b"png"),
        ("/small/0123/summary.json", "application/json", b"{}"),
        ("/small/0123/scenario.yaml", "text/plain; charset=utf-8", b"name: small"),
    ):
        status, headers, body = ask(server, f"GET {path} HTTP/1.1")
        assert (status, headers["Content-Type"]) == (200, kind), path
        assert text in body
        assert headers["Content-Security-Policy"] == f"{content_policy()}; frame-ancestors 'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert int(headers["Content-Length"]) == len(body)
        status, again, nothing = ask(server, f"HEAD {path} HTTP/1.1")
        assert (status, again["Content-Length"], nothing) == (200, headers["Content-Length"], b"")


OUTSIDE = [
    "/../secret.html", "/small/../../secret.html", "/%2e%2e/secret.html", "/%2E%2E%2Fsecret.html", "/..%2fsecret.html",
    "/%252e%252e/secret.html", "/..%5csecret.html", "/..\\secret.html", "//secret.html", "///../secret.html",
    "/small//0123/report.html", "/small/./0123/report.html", "/%00.html", "/secret.html%00.png", "/%ff.html",
    "/link.html", "/up/secret.html", "/inside.html", "/up/runs/small/0123/report.html", "/folder.html", "/pipe.html",
    "/.hidden.html", "/.git/x.html", "/small/0123/examples.json", "/small/0123/audit.parquet", "/small/0123/", "/small",
    "/small/0123/manifest.json", "/small/0123/.html", "/" + "a" * 5000 + ".html", "secret.html", "../secret.html", "*",
    "http://127.0.0.1/secret.html", "file:///etc/passwd", "/C:/secret.html", "/small/0123/report.html/", "/favicon.ico",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_served(path: str, server: ViewServer) -> None:
    path = path.replace("/secret.html", f"{server.root.parent}/secret.html") if path.startswith("/C:") else path
    status, headers, body = ask(server, f"GET {path} HTTP/1.1")
    assert status in (400, 403, 404)
    assert headers["Content-Type"].startswith("text/plain")
    assert SECRET not in body
    assert b"secret" not in body


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:1",
        "0.0.0.0",
        "127.0.0.1.evil",
        "-",
    ],
)
def test_another_host_name_is_refused(host: str, server: ViewServer) -> None:
    """A web site whose name was pointed at this machine gets nothing (DNS rebinding)."""
    for path in ("/", "/small/0123/report.html"):
        status, _, body = ask(server, f"GET {path} HTTP/1.1", host=host)
        assert (status, body) == (403, b"403 Forbidden\n")


def test_two_host_names_are_refused_and_localhost_is_taken(server: ViewServer) -> None:
    assert ask(server, "GET / HTTP/1.1", "Host: evil.example")[0] == 403
    assert ask(server, "GET / HTTP/1.1", host=f"LOCALHOST:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "<script>"])
def test_other_methods_are_refused(method: str, server: ViewServer) -> None:
    status, _, body = ask(server, f"{method} / HTTP/1.1")
    assert status == 501
    assert body == b"501 Not Implemented\n"


def test_only_the_loopback_address_is_bound(server: ViewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_a_taken_port_and_a_missing_folder_are_named(server: ViewServer, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=rf"--port: port {server.server_port} cannot be used: .*choose another"):
        ViewServer(tmp_path, server.server_port)
    with pytest.raises(FolderError, match="there is no folder"):
        ViewServer(tmp_path / "nowhere")


def test_a_file_is_opened_inside_the_folder_alone(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "page.html").write_bytes(b"x")
    file, _ = open_served(root, "/page.html")
    assert file is not None
    with file:
        assert file.read() == b"x"
    assert open_served(root, "page.html") == (None, "")
    assert open_served(root / "deeper", "/../page.html") == (None, "")
