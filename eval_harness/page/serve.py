"""The page's folder over HTTP, for this machine alone."""

import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import explain

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".onnx": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # With the first two a page may use several threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class _Handler(SimpleHTTPRequestHandler):
    """Gives the files of one folder: no lists of folders, nothing outside."""

    extensions_map = _TYPES

    def send_head(self) -> Any:
        """Answer with a file's head, or with 404 for what isn't a file of the folder."""
        home, path = Path(self.directory).resolve(), Path(self.translate_path(self.path)).resolve()
        asked = path / "index.html" if path == home else path
        if not asked.is_relative_to(home) or not asked.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002  (the base's name)
        sys.stderr.write(f"{format % values}\n".encode("ascii", "replace").decode())
        sys.stderr.flush()


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a folder on this machine's own address, ready to be started.

    Args:
        folder: the folder.
        port: its port; 0 for any that is free.

    Raises:
        UserError: the port is taken, or isn't allowed.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        reason = explain(error) if isinstance(error, OSError) else str(error)
        raise UserError(
            f"--port {port}: {reason}; choose another, or 0 for any that is free"
        ) from error
