"""The test suite stays offline: neither tests nor the processes they start reach the network."""

import socket
import subprocess
import sys

import pytest
from sitecustomize import NetworkBlocked


def test_this_process_reaches_only_this_machine():
    """Prevents a test that passes only where there is a network."""
    with pytest.raises(NetworkBlocked), socket.socket() as connection:
        connection.connect(("192.0.2.1", 80))
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo("huggingface.co", 443)
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


def test_a_started_process_is_cut_off_too():
    """Prevents a command that a test starts from reaching the Hub unnoticed."""
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert child.returncode != 0
    assert "NetworkBlocked" in child.stderr


def test_the_hub_is_switched_off():
    """Prevents the Hub's client from retrying for 23 seconds before it gives up."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
