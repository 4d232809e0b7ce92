"""Addresses at which no Ray cluster answers, without Ray, against sockets on the loopback."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from angels_share.errors import UserError
from eval_harness.sweep import ray_cluster


class Quiet(BaseHTTPRequestHandler):
    """A web page's server, as of Ray's dashboard, which logs nothing."""

    def log_message(self, *_):
        pass


@contextmanager
def web_page():
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def saying(answer):
    """A server that takes one connection, and says something whatever it hears."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                ended.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("listening", [web_page(), saying(b"220 mail.example ESMTP\r\n")])
def test_something_else_at_the_address_is_refused(listening):
    """Prevents a command that waits for ever at the port of Ray's dashboard."""
    with listening as port, pytest.raises(UserError) as caught:
        ray_cluster._require_answer(f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}: no Ray cluster answers there: something else" in str(caught.value)
    assert "not the dashboard's" in str(caught.value)


def test_something_that_says_nothing_is_refused(monkeypatch):
    """Prevents a command that waits for ever for something that waits itself."""
    monkeypatch.setattr(ray_cluster, "_ANSWER_SECONDS", 0.2)
    with saying(b"") as port, pytest.raises(UserError, match="no Ray cluster answers there: "):
        ray_cluster._require_answer(f"127.0.0.1:{port}")


def test_settings_of_http2_are_an_answer():
    """Prevents a cluster from being refused."""
    with saying(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64") as port:
        ray_cluster._require_answer(f"127.0.0.1:{port}")


@pytest.mark.parametrize("given", ["1", "True"])
def test_a_cluster_with_tls_is_left_to_ray(monkeypatch, given):
    """Prevents a refusal of a cluster that answers to nothing unencrypted."""
    monkeypatch.setenv("RAY_USE_TLS", given)
    with web_page() as port:
        ray_cluster._require_answer(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["auto", "head.example"])
def test_an_address_without_a_port_is_left_to_ray(address):
    """Prevents a refusal of what Ray finds by itself."""
    ray_cluster._require_answer(address)
