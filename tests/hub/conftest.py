"""A Hub of the tests' own, used by the real clients over a real socket."""

import pytest
from hub_server import Hub

from angels_share.hub import locate


@pytest.fixture
def server():
    """A Hub that nothing uses yet."""
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A Hub that this process uses, with an empty cache, and what it was told before forgotten."""
    for name in ("_FOUND", "_ENTRIES"):
        monkeypatch.setattr(locate, name, {})
    monkeypatch.setattr(locate, "_SILENT", set())
    server.use(monkeypatch, tmp_path / "home")
    return server


@pytest.fixture
def forget(monkeypatch):
    """Start anew, as the next command does: forget what the Hub said in this process."""

    def start_anew():
        locate._FOUND.clear()
        locate._ENTRIES.clear()
        locate._SILENT.clear()

    return start_anew
