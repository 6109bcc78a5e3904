"""Serves the live page on this machine alone: the page, its state, and nothing else."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from ...errors import UserError
from .page import live_page

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # a page elsewhere whose name leads here asks for its own
PATIENCE = 10  # seconds for a request to come
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class LiveServer(ThreadingHTTPServer):
    """A server of one page; `state` gives what it shows, as JSON."""

    daemon_threads = True

    def __init__(self, port: int, state: Callable[[], bytes]) -> None:
        """Port 0 takes a free one. UserError where the port cannot be had."""
        self.state = state
        self.page, self.policy = live_page()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(_refused(port, error)) from error
        of_page = [f"{name}:{self.server_port}" for name in NAMES]
        self.hosts = {*of_page, *(NAMES if self.server_port == HTTP_PORT else ())}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def server_bind(self) -> None:
        """Binds, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who leaves is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logging.getLogger(__name__).exception("the page was not answered")


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version, sys_version = "sslbench", ""
    timeout = PATIENCE
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN, f"this page is at {self.server.url} alone")
        elif self.path == "/":
            self._answer(self.server.page, "text/html; charset=utf-8")
        elif self.path == "/state.json":
            self._answer(self.server.state(), "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there is / and /state.json")

    do_HEAD = do_GET  # noqa: N815 - likewise; _answer sends no body

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _not_allowed(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "this page is only read")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _not_allowed  # noqa: N815 - likewise

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.server.policy)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is for what the command says."""


def _refused(port: int, error: OSError) -> str:
    other = "name another with --port N; --port 0 takes a free one"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use, perhaps by another watch; {other}"
    return f"port {port} cannot be had: {error.strerror or error}; {other}"
