"""Block the network for the test process and, through PYTHONPATH, for its children.

Anything but the loopback is refused at once and by name, so that a test that tries to use the
network fails here too, and not only on a machine without one.
"""

import ipaddress
import os
import socket

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # so that the processes of a test find each other


class NetworkBlocked(OSError):  # noqa: N818  (named after what happened)
    """A test tried to reach another machine."""


_connect, _connect_ex, _getaddrinfo = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.getaddrinfo,
)


def _is_local(host):
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _require_local(family, address):
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        raise NetworkBlocked(f"a test tried to reach {address[0]}:{address[1]}")


def _guarded_connect(self, address):
    _require_local(self.family, address)
    return _connect(self, address)


def _guarded_connect_ex(self, address):
    _require_local(self.family, address)
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host, *rest, **named):
    if isinstance(host, str) and not _is_local(host):
        raise NetworkBlocked(f"a test tried to look up {host}")
    return _getaddrinfo(host, *rest, **named)


socket.socket.connect = _guarded_connect
socket.socket.connect_ex = _guarded_connect_ex
socket.getaddrinfo = _guarded_getaddrinfo
