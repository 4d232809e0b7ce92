"""A small Hub on the loopback, for tests with the real clients over a real socket.

`Hub` keeps repositories in memory and answers what huggingface_hub, datasets, transformers and
hf-xet ask for. It notes every request, and fails when it is told to. Large files lie on a second
host, as the real Hub's do, so that a test sees whether a token follows a redirect there. What isn't
kept here (pull requests, reading by Xet, uploads in parts) is refused.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGEST_BODY = 64 << 20
ALWAYS_LARGE = (".safetensors", ".parquet")
ID, REV, SHA256 = r"(?P<id>(?:[^/]+/)?[^/]+?)", r"(?P<rev>[^/]+)", r"(?P<sha256>[0-9a-f]{64})"
REPO, PAGE = rf"/api/(?P<kind>models|datasets)/{ID}", rf"/(?:(?P<kind>datasets)/)?{ID}"
ROUTES = []


# What is received and answered


@dataclass
class Request:
    """One request as it arrived; `status` is what was answered, None if nothing was."""

    method: str
    host: str
    path: str
    headers: object  # an email.message.Message: names in any case
    body: bytes = b""
    status: int | None = None
    fault: str | None = None

    @property
    def token(self):
        """The token that came with it, or None."""
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    @property
    def query(self):
        """The query, each name with the list of its values."""
        return parse_qs(urlsplit(self.path).query)

    def json(self):
        """Return the body, read as JSON."""
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    """A status, a body and headers."""

    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)


def _json(data, status=200, **headers):
    body = json.dumps(data).encode()
    return Answer(status, body, {"Content-Type": "application/json", **headers})


class Denial(Exception):  # noqa: N818  (named after what happened)
    """A request is refused, in the words and with the headers of the real Hub."""

    def __init__(self, status, message="", code=None, **more):
        message = message or responses.get(status, "")
        super().__init__(message)
        headers = {"X-Error-Message": message, "X-Error-Code": code, **more}
        self.answer = _json({"error": message}, status, **{k: v for k, v in headers.items() if v})


def _missing(user):
    """Return what is said of a repository that isn't there, or that one mustn't see."""
    if user is None:
        return Denial(401, "Invalid username or password.", "RepoNotFound")
    return Denial(404, "Repository not found", "RepoNotFound")


def _part(request, content, headers):
    """Return all of the content, or the range of it that was asked for."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return Answer(200, content, headers)
    first, last = asked.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(int(last) + 1 if first and last else len(content), len(content))
    if start >= stop:
        raise Denial(416, **{"Content-Range": f"bytes */{len(content)}"})
    place = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
    return Answer(206, content[start:stop], headers | place)


# What can go wrong


@dataclass(frozen=True)
class Fault:
    """What happens to one request in place of its right answer."""

    kind: str
    answer: Answer | None = None
    seconds: float | None = None
    action: object = None


reset = partial(Fault, "reset")  # the connection is reset, and nothing is done
lost = partial(Fault, "lost")  # what was asked is done, but instead of the answer comes a reset
half = partial(Fault, "half")  # the whole body is promised, half of it sent, then hung up
never = partial(Fault, "never")  # accepted, but not answered until the Hub is closed


def slow(seconds):
    """Return the fault that answers rightly, but later."""
    return Fault("slow", seconds=seconds)


def meanwhile(action):
    """Return the fault that lets somebody else do something first; the answer is then right."""
    return Fault("meanwhile", action=action)


def status(number, message="", *, code=None, retry_after=None):
    """Return the fault that answers with this status; nothing is done."""
    more = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault("status", Denial(number, message, code, **more).answer)


# What is kept


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one moment."""

    sha: str
    parent: str | None
    title: str
    message: str
    files: dict
    date: str


class Repo:
    """A repository: its commits, and what points to them."""

    def __init__(self, what, name, *, private=False, gated=False):
        self.what, self.id, self.private = what, name, private
        self.gated = "auto" if gated is True else gated
        self.page = f"datasets/{name}" if what == "dataset" else name
        self.commits, self.branches, self.tags = {}, {}, {}

    def commit(self, branch, files, title, message=""):
        """Put a commit with exactly these files on top of a branch; return its sha."""
        number, parent = len(self.commits), self.branches.get(branch)
        digest = hashlib.sha1(repr((self.page, number, parent, title)).encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + hashlib.sha256(content).digest())
        sha = self.branches[branch] = digest.hexdigest()
        date = f"2026-01-01T{number // 60 % 24:02}:{number % 60:02}:00.000Z"
        self.commits[sha] = Commit(sha, parent, title, message, dict(files), date)
        return sha

    def at(self, revision):
        """Return the commit that a branch, a tag, or a sha or its beginning names."""
        sha = self.branches.get(revision) or self.tags.get(revision)
        if sha is None and re.fullmatch("[0-9a-f]{7,40}", revision):
            sha = next((known for known in self.commits if known.startswith(revision)), None)
        if sha is None:
            raise Denial(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def history(self, revision):
        """Return the commits that lead to a revision, the oldest first."""
        line = [self.at(revision)]
        while line[-1].parent:
            line.append(self.commits[line[-1].parent])
        return line[::-1]


@dataclass(frozen=True)
class User:
    """Whom a token belongs to."""

    name: str
    can_write: bool
    access: tuple
    organizations: tuple

    def owns(self, repo_id):
        """Tell whether a repository is in the user's namespace or an organization's."""
        return repo_id.split("/")[0] in (self.name, *self.organizations)


def card_problems(content):
    """Return errors and warnings: whether the metadata can be read, not whether they are true."""
    import yaml  # the one thing beyond the standard library

    found = re.match(r"\s*---\s*?\n(.*?)\n---[ \t]*\r?(\n|$)", content, re.DOTALL)
    if not found:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(found[1])
        json.dumps(metadata, allow_nan=False, default=str)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        return [f"invalid metadata: {error}"], []
    return ([] if isinstance(metadata, dict) else ["the metadata must be an object"]), []


# Xet, as far as an upload needs it


def unpack_lz4(frame):
    """Return what an LZ4 frame holds. The checksums, where it has them, are passed over."""
    if frame[:4] != b"\x04\x22\x4d\x18":
        raise ValueError("not an LZ4 frame")
    flags, out = frame[4], bytearray()
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    while size := int.from_bytes(frame[at : at + 4], "little"):
        block = frame[at + 4 : at + 4 + (size & 0x7FFFFFFF)]
        at += 4 + len(block) + (4 if flags & 16 else 0)
        if size >> 31:
            out += block
        else:
            _unpack_lz4_block(block, out)
    return bytes(out)


def _unpack_lz4_block(block, out):
    """Append what a block holds to `out`, parts of which it may repeat."""
    at = 0

    def length(start):
        nonlocal at
        more = start == 15
        while more:
            start, more, at = start + block[at], block[at] == 255, at + 1
        return start

    while at < len(block):
        token, at = block[at], at + 1
        plain = length(token >> 4)
        out += block[at : at + plain]
        at += plain
        if at < len(block):  # the last sequence repeats nothing
            start, at = len(out) - int.from_bytes(block[at : at + 2], "little"), at + 2
            repeated = length(token & 15) + 4
            source = out[start : start + repeated]  # shorter, if it overlaps with its repetition
            out += (source * (repeated // len(source) + 1))[:repeated]


def xorb_chunks(body):
    """Yield the scheme and the content of each chunk of a xorb."""
    at = 0
    while at < len(body) and body[at : at + 7] != b"XETBLOB":
        packed = int.from_bytes(body[at + 1 : at + 4], "little")
        scheme, size = body[at + 4], int.from_bytes(body[at + 5 : at + 8], "little")
        content = body[at + 8 : at + 8 + packed]
        at += 8 + packed
        if scheme:
            content = unpack_lz4(content)
        if scheme == 2:  # all first bytes of four, then all second ones, and so on
            grouped, content, start = content, bytearray(size), 0
            for place in range(4):
                count = len(range(place, size, 4))
                content[place::4] = grouped[start : start + count]
                start += count
        if len(content) != size or scheme > 2:
            raise ValueError("a chunk isn't what its head says")
        yield scheme, bytes(content)


def shard_files(body):
    """Yield each file of a shard as its list of (xorb's hash, first chunk, end)."""
    at = 48
    while body[at : at + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", body, at + 32)
        segments = [struct.unpack_from("<4Q8xII", body, at + 48 * (1 + i)) for i in range(count)]
        yield [("%016x" * 4 % words[:4], *words[4:]) for words in segments]
        at += 48 * (1 + count * (2 if flags >> 31 else 1) + (flags >> 30 & 1))


# The sockets


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as the real Hub keeps them
    disable_nagle_algorithm = True

    def _serve(self):
        hub, size = self.server.hub, int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, self.headers.get("Host", ""), self.path, self.headers)
        hub.requests.append(request)
        if size > LARGEST_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return self._send(request, Denial(413 if size else 411).answer)
        request.body = self.rfile.read(size)
        fault = hub.next_fault(request)
        request.fault = fault and fault.kind
        if request.fault == "reset":
            return self._reset()
        if request.fault == "meanwhile":
            fault.action()
        if request.fault in ("never", "slow") and hub.closed.wait(fault.seconds):
            self.close_connection = True
            return None
        answer = (fault and fault.answer) or hub.answer(request, self.server.routes)
        return self._reset() if request.fault == "lost" else self._send(request, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _send(self, request, answer):
        request.status = answer.status
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body if self.command != "HEAD" else b""
        if request.fault == "half":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def _reset(self):
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)  # closing with nothing to linger for is a reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()  # it would keep the socket open
        self.connection.close()

    def log_message(self, *words):
        """Keep quiet: `Hub.requests` tells more."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, hub, routes, port):
        super().__init__(("127.0.0.1", port), _Handler)
        self.hub, self.routes, self.connections = hub, routes, set()
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def get_request(self):
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Note what is wrong with this server; that a client hung up isn't."""
        if not isinstance(error := sys.exception(), ConnectionError):
            self.hub.errors.append(error)

    def stop(self):
        """Let nobody in any more, and hang up on those who are."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


# The Hub


def _route(methods, pattern, *, right=None, server="hub"):
    """Register what answers these methods of this path, and the right that it needs."""

    def note(function):
        ROUTES.append((server, methods.split(), re.compile(pattern), right, function))
        return function

    return note


class Hub:
    """The Hub: a context manager that serves until it is left.

    Args:
        large_from: The size from which on a file is stored as a large one.
        page_size: The most entries of a list that are sent at once.
    """

    def __init__(self, *, large_from=1 << 20, page_size=1000):
        self.large_from, self.page_size = large_from, page_size
        self.requests, self.errors = [], []
        self.closed, self._used = threading.Event(), False
        self._lock = threading.RLock()
        self._repos, self._renamed, self._users, self._faults = {}, {}, {}, []
        self._blobs, self._xorbs, self._xet_tokens = {}, {}, set()
        self._servers = [_Server(self, routes, 0) for routes in ("hub", "store")]
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.store = f"http://localhost:{self._servers[1].server_port}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
        if self.errors and error is None:
            raise self.errors[0]

    def close(self):
        """Stop: from now on connections are refused."""
        if not self.closed.is_set():
            self.closed.set()
            self._stop()
            if self._used:
                self._forget()

    @contextmanager
    def gone(self):
        """Refuse connections inside of the block, then serve again at the same address."""
        self._stop()
        with ExitStack() as held:
            for server in self._servers:  # bound but not listening, so that nobody takes the port
                port = held.enter_context(socket.socket())
                port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                port.bind(server.server_address)
            yield
        self._servers = [_Server(self, old.routes, old.server_port) for old in self._servers]

    def _stop(self):
        for server in self._servers:
            server.stop()

    # What tests do with it

    def add(self, repo_id, files, *, what="model", private=False, gated=False, renamed_from=()):
        """Make a repository with one commit, and send those who ask for an older name on to it."""
        repo = self._repos[what, repo_id] = Repo(what, repo_id, private=private, gated=gated)
        self._renamed.update({(what, old): repo_id for old in renamed_from})
        return repo.commit("main", files, "Add files")

    def commit(self, repo_id, files, *, what="model", branch="main", removed=(), title="Update"):
        """Commit behind the clients' backs; return the sha."""
        repo = self.repo(repo_id, what)
        kept = {k: v for k, v in repo.at(branch).files.items() if k not in removed}
        return repo.commit(branch, kept | dict(files), title)

    def branch(self, repo_id, name, revision="main", what="model"):
        """Let a branch begin at a revision."""
        repo = self.repo(repo_id, what)
        repo.branches[name] = repo.at(revision).sha

    def tag(self, repo_id, name, revision="main", what="model"):
        """Give a revision a tag."""
        repo = self.repo(repo_id, what)
        repo.tags[name] = repo.at(revision).sha

    def token(self, name, *, can_write=True, access=(), organizations=()):
        """Return a new token of a user: `access` are the repositories that others let it read."""
        token = "hf_" + hashlib.sha1(f"{name} {len(self._users)}".encode()).hexdigest()[:34]
        self._users[token] = User(name, can_write, tuple(access), tuple(organizations))
        return token

    def repo(self, repo_id, what="model"):
        """Return a repository."""
        return self._repos[what, repo_id]

    def files(self, repo_id, revision="main", what="model"):
        """Return the files of a revision."""
        return dict(self.repo(repo_id, what).at(revision).files)

    def commits(self, repo_id, what="model", branch="main"):
        """Return the commits of a branch, the oldest first."""
        return self.repo(repo_id, what).history(branch)

    def asked(self, pattern, method=None):
        """Return the requests whose path has the pattern in it."""
        found = (known for known in list(self.requests) if re.search(pattern, known.path))
        return [request for request in found if method in (None, request.method)]

    def fail(self, pattern, *faults, method=None):
        """Let each request whose path has the pattern in it meet the next of these faults.

        `half` passes over HEADs, which have no body. A GET of a large file is a redirect first:
        its body comes from `/cdn/`.
        """
        self._faults.append((re.compile(pattern), method, deque(faults)))

    def next_fault(self, request):
        """Take the fault that this request meets, if any."""
        with self._lock:
            for pattern, method, faults in self._faults:
                meant = pattern.search(request.path) and method in (None, request.method)
                if faults and meant and (faults[0].kind, request.method) != ("half", "HEAD"):
                    return faults.popleft()
        return None

    # Who uses it

    def environment(self, home, *, token=None, xet=True):
        """Return the variables that make a child process use this Hub, its caches in `home`."""
        folders = {"HUB_CACHE": "hub", "XET_CACHE": "xet", "DATASETS_CACHE": "datasets"}
        folders |= {"HOME": "", "TOKEN_PATH": "token"}
        found = {f"HF_{name}": str(Path(home, folder)) for name, folder in folders.items()}
        found |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        found |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "0")
        found["HF_HUB_DISABLE_XET"] = "0" if xet else "1"
        found["HF_HUB_DISABLE_TELEMETRY"] = "1"
        found["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"  # it asks another server
        # Its own retries take minutes where a test lets every one of them fail.
        found["HF_XET_CLIENT_RETRY_MAX_ATTEMPTS"] = "1"
        found["HF_XET_CLIENT_RETRY_BASE_DELAY"] = "50ms"
        found["HF_ENDPOINT"] = self.endpoint
        return found | ({"HF_TOKEN": token} if token else {})

    def use(self, monkeypatch, home, *, token=None, xet=True):
        """Let this process use the Hub, its caches in `home`, until `monkeypatch` is undone.

        The clients read most variables once, when they are imported, and keep sessions and lists:
        all of it is exchanged. Their connections are closed with the Hub.
        """
        import datasets.config  # noqa: F401  (an import later on would keep our variables)
        from huggingface_hub import constants, hf_api, hf_file_system
        from huggingface_hub.utils import _xet

        if token is None:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        for name, value in self.environment(home, token=token, xet=xet).items():
            monkeypatch.setenv(name, value)
        for name in ("huggingface_hub.constants", "datasets.config"):  # the second reads the first
            for setting, value in _settings(name).items():
                monkeypatch.setattr(f"{name}.{setting}", value)
        for client in (hf_api.api, hf_file_system.hffs, hf_file_system.hffs._api):
            monkeypatch.setattr(client, "endpoint", constants.ENDPOINT)
        if transformers := sys.modules.get("transformers.utils.hub"):
            monkeypatch.setattr(transformers, "_hf_api", None, raising=False)
        monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
        monkeypatch.setattr(_xet, "XET_CONNECTION_INFO_CACHE", {})
        self._forget()
        self._used = True

    @contextmanager
    def used(self, home, *, token=None, xet=True):
        """Let this process use the Hub inside of the block, as `use` does.

        A patch of the same settings that is made inside must be undone inside, too: undone later,
        it would bring this Hub's settings back. So with the fixture `monkeypatch` take `use`.
        """
        import pytest

        with pytest.MonkeyPatch.context() as patch:
            self.use(patch, home, token=token, xet=xet)
            yield self
            self._forget()

    def _forget(self):
        from huggingface_hub import HfFileSystem, close_session

        close_session()
        HfFileSystem.clear_instance_cache()

    # Whom it lets in

    def answer(self, request, server):
        """Return the answer to a request that came to one of the two servers."""
        try:
            with self._lock:
                return self._routed(request, server)
        except Denial as denial:
            return denial.answer
        except Exception as error:  # noqa: BLE001  (the test must see it, not only the client)
            self.errors.append(error)
            return Denial(501, f"{type(error).__name__}: {error}").answer  # no client tries again

    def _routed(self, request, server):
        path = request.path.partition("?")[0]
        for where, methods, pattern, right, function in ROUTES:
            if where == server and request.method in methods and (at := pattern.fullmatch(path)):
                named = {name: part and unquote(part) for name, part in at.groupdict().items()}
                if right is None:
                    return function(self, request, **named)
                return self._of_repo(request, at.span("id"), right, partial(function, self), named)
        raise Denial(404, "Sorry, we can't find the page you are looking for.")

    def _of_repo(self, request, span, right, function, named):
        what = "dataset" if named.pop("kind") == "datasets" else "model"
        name, user = named.pop("id"), self._user(request)
        if new := self._renamed.get((what, name)):
            moved = request.path[: span[0]] + new + request.path[span[1] :]
            return Answer(307, headers={"Location": moved})
        if (repo := self._repos.get((what, name))) is None:
            raise _missing(user)
        owner = user is not None and user.owns(name)
        granted = owner or (user is not None and name in user.access)
        if (repo.private and not granted) or (right == "write" and user is None):
            raise _missing(user)
        if right == "files" and repo.gated and not granted:
            what = f"Access to {what} {name} is restricted and you are not in the authorized list."
            raise Denial(403 if user else 401, what, "GatedRepo")
        if right == "write" and not (owner and user.can_write):
            raise Denial(403, "You don't have the rights to write to this repository")
        return function(request, repo, **named)

    def _user(self, request):
        if request.token and request.token not in self._users:
            raise Denial(401, "Invalid credentials in Authorization header")
        return self._users.get(request.token)

    # What isn't about one repository

    @_route("GET", "/api/whoami-v2")
    def _whoami(self, request):
        if (user := self._user(request)) is None:
            raise Denial(401, "Invalid username or password.")
        role = {"displayName": "test", "role": "write" if user.can_write else "read"}
        auth = {"type": "access_token", "accessToken": role}
        groups = [{"type": "org", "name": name} for name in user.organizations]
        return _json({"type": "user", "name": user.name, "orgs": groups, "auth": auth})

    @_route("GET", "/api/agent-harnesses")
    def _harnesses(self, request):
        return _json({"standardEnvVars": [], "harnesses": {}})

    @_route("POST", "/api/validate-yaml")
    def _validate(self, request):
        errors, warnings = card_problems(request.json()["content"])
        found = {"errors": errors, "warnings": warnings}
        said = {name: [{"message": line} for line in lines] for name, lines in found.items()}
        return _json(said, 400 if errors else 200)

    @_route("POST", "/api/repos/create")
    def _create(self, request):
        asked, user = request.json(), self._user(request)
        if user is None:
            raise Denial(401, "Invalid username or password.")
        what, owner = asked.get("type") or "model", asked.get("organization") or user.name
        repo = Repo(what, f"{owner}/{asked['name']}", private=asked.get("visibility") == "private")
        if what not in ("model", "dataset") or not user.can_write or not user.owns(repo.id):
            raise Denial(403, f"You don't have the rights to create a {what} under {owner}")
        place = {"url": f"{self.endpoint}/{repo.page}", "name": repo.id}
        if (what, repo.id) in self._repos:
            return _json({"error": f"You already created this {what} repo", **place}, 409)
        self._repos[what, repo.id] = repo
        lines = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in ALWAYS_LARGE)
        repo.commit("main", {".gitattributes": lines.encode()}, "initial commit")
        return _json(place)

    @_route("DELETE", "/api/repos/delete")
    def _delete(self, request):
        asked, user = request.json(), self._user(request)
        if user is None:
            raise Denial(401, "Invalid username or password.")
        what, owner = asked.get("type") or "model", asked.get("organization") or user.name
        key = what, f"{owner}/{asked['name']}"
        if key not in self._repos:
            raise _missing(user)
        if not (user.can_write and user.owns(key[1])):
            raise Denial(403, f"You don't have the rights to delete {key[1]}")
        del self._repos[key]
        return _json({})

    # Reading

    @_route("GET HEAD", rf"{PAGE}/resolve/{REV}/(?P<path>.+)", right="files")
    def _resolve(self, request, repo, rev, path):
        commit = repo.at(rev)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            raise Denial(404, "Entry not found", "EntryNotFound", **headers)
        content, known = commit.files[path], self._known(path, commit.files[path])
        headers["ETag"] = f'"{known["oid"]}"'
        if "lfs" not in known:
            return _part(request, content, headers)
        sha256, name = self._keep(content), quote(path.rsplit("/", 1)[-1])
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"{self.store}/cdn/{sha256}/{name}?Signature=made"
        return Answer(302, headers=headers)

    @_route("GET", rf"{REPO}/tree/{REV}(?:/(?P<path>.+))?", right="info")
    def _tree(self, request, repo, rev, path):
        commit, top = repo.at(rev), f"{path}/" if path else ""
        deep = request.query.get("recursive") == ["true"]
        below = {k: v for k, v in self._entries(commit).items() if k.startswith(top)}
        if top and not below:
            raise Denial(404, "Not found", "EntryNotFound", **{"X-Repo-Commit": commit.sha})
        entries = [v for k, v in below.items() if deep or "/" not in k.removeprefix(top)]
        return self._paged(request, entries)

    @_route("POST", rf"{REPO}/paths-info/{REV}", right="info")
    def _paths_info(self, request, repo, rev):
        entries = self._entries(repo.at(rev))
        paths = parse_qs(request.body.decode()).get("paths", [])
        return _json([entries[path] for path in paths if path in entries])

    @_route("GET", rf"{REPO}/commits/{REV}", right="info")
    def _commits(self, request, repo, rev):
        found = [
            {"id": known.sha, "authors": [], "date": known.date}
            | {"title": known.title, "message": known.message}
            for known in reversed(repo.history(rev))
        ]
        return self._paged(request, found)

    @_route("GET", rf"{REPO}/auth-check", right="files")
    def _auth_check(self, request, repo):
        return _json({})

    @_route("GET", rf"{REPO}/auth-check/write", right="write")
    def _auth_check_write(self, request, repo):
        return _json({})

    # Writing

    @_route("POST", rf"{REPO}/branch/(?P<name>[^/]+)", right="write")
    def _branch(self, request, repo, name):
        return self._refer(repo, repo.branches, name, request.json().get("startingPoint", "main"))

    @_route("POST", rf"{REPO}/tag/{REV}", right="write")
    def _tag(self, request, repo, rev):
        return self._refer(repo, repo.tags, request.json()["tag"], rev)

    def _refer(self, repo, refs, name, revision):
        if name in refs:
            raise Denial(409, f"Reference already exists: {name}")
        refs[name] = repo.at(revision).sha
        return _json({})

    @_route("POST", rf"{REPO}/preupload/{REV}", right="write")
    def _preupload(self, request, repo, rev):
        files, answers = repo.at(rev).files, []
        for asked in request.json()["files"]:
            path, mode = asked["path"], "regular"
            known = self._known(path, files[path]) if path in files else {}
            if self._is_large(path, asked["size"]):
                mode, known = "lfs", known.get("lfs", {})
            answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            answers.append(answer | ({"oid": known["oid"]} if known else {}))
        return _json({"files": answers})

    @_route("POST", rf"{PAGE}\.git/info/lfs/objects/batch", right="write")
    def _lfs_batch(self, request, repo):
        objects = request.json()["objects"]
        for answer in objects:
            if answer["oid"] not in self._blobs:
                upload = f"{self.store}/lfs/{answer['oid']}?Signature=made"
                verify = f"{self.endpoint}/{repo.page}.git/info/lfs/objects/verify"
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return _json({"transfer": "basic", "objects": objects})

    @_route("POST", rf"{PAGE}\.git/info/lfs/objects/verify", right="write")
    def _lfs_verify(self, request, repo):
        asked = request.json()
        if len(self._blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Denial(404, "The object isn't there")
        return _json({})

    @_route("GET", rf"{REPO}/xet-write-token/{REV}", right="write")
    def _xet_token(self, request, repo, rev):
        token, expires = f"xet_{len(self._xet_tokens)}", 1 << 32  # in 2106
        self._xet_tokens.add(token)
        return _json({"accessToken": token, "exp": expires, "casUrl": self.store})

    @_route("POST", rf"{REPO}/commit/{REV}", right="write")
    def _commit(self, request, repo, rev):
        head, *changes = map(json.loads, request.body.splitlines())
        if rev not in repo.branches:
            raise Denial(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        if "create_pr" in request.query or not (title := head["value"].get("summary")):
            raise Denial(400, "a commit needs a summary, and pull requests aren't kept here")
        if not repo.branches[rev].startswith(head["value"].get("parentCommit", "")):
            raise Denial(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.at(rev).files)
        for change in changes:
            self._change(files, change["key"], **change["value"])
        if errors := card_problems(files.get("README.md", b"").decode())[0]:
            raise Denial(400, f"Invalid metadata in README.md: {errors[0]}".splitlines()[0])
        sha = repo.commit(rev, files, title, head["value"].get("description", ""))
        url = f"{self.endpoint}/{repo.page}/commit/{sha}"
        return _json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def _change(self, files, key, path, content=None, oid=None, **_):
        if key == "file":
            files[path] = base64.b64decode(content)
        elif key == "lfsFile" and oid in self._blobs:
            files[path] = self._blobs[oid]
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]
        else:
            raise Denial(400, f"{key}: no file, or no content, for {path}")

    # A repository itself; after the rest, since this pattern matches the others' paths too

    @_route("GET", rf"{REPO}(?:/revision/{REV})?", right="info")
    def _info(self, request, repo, rev):
        commit, siblings = repo.at(rev or "main"), []
        for path, content in sorted(commit.files.items()):
            known = self._known(path, content) if "blobs" in request.query else {}
            renamed = {"blobId" if k == "oid" else k: v for k, v in known.items()}
            siblings.append({"rfilename": path, **renamed})
        found = {"id": repo.id, "sha": commit.sha, "siblings": siblings, "tags": []}
        found |= {"private": repo.private, "gated": repo.gated, "lastModified": commit.date}
        return _json(found)

    # The other host: it takes and gives large files, and knows no Hub's token

    @_route("GET HEAD", f"/cdn/{SHA256}/.+", server="store")
    def _cdn(self, request, sha256):
        if request.token:
            raise Denial(400, "Only one auth mechanism allowed")
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        return _part(request, self._blobs[sha256], headers)

    @_route("PUT", f"/lfs/{SHA256}", server="store")
    def _put(self, request, sha256):
        if request.token or hashlib.sha256(request.body).hexdigest() != sha256:
            raise Denial(400, "a token, or not what was announced")
        self._keep(request.body)
        return Answer()

    @_route("POST", f"/v1/xorbs/[^/]+/{SHA256}", server="store")
    def _xorb(self, request, sha256):
        self._require_xet(request)
        self._xorbs[sha256] = [content for _, content in xorb_chunks(request.body)]
        return _json({"was_inserted": True})

    @_route("POST", "/v1/shards", server="store")
    def _shard(self, request):
        self._require_xet(request)
        for segments in shard_files(request.body):
            if any(name not in self._xorbs for name, *_ in segments):
                raise Denial(400, "a segment's xorb isn't there")
            parts = (self._xorbs[name][first:end] for name, first, end in segments)
            self._keep(b"".join(chunk for part in parts for chunk in part))
        return _json({"result": 1})

    def _require_xet(self, request):
        if request.token not in self._xet_tokens:
            raise Denial(401, "no Xet token")

    # How files are described

    def _is_large(self, path, size):
        return size > 0 and (path.endswith(ALWAYS_LARGE) or size >= self.large_from)

    def _keep(self, content):
        sha256 = hashlib.sha256(content).hexdigest()
        self._blobs[sha256] = content
        return sha256

    def _known(self, path, content):
        """Return the size and the hash that git has of a file, or of the pointer to a large one."""
        size, found = len(content), {"size": len(content)}
        if self._is_large(path, size):
            sha256 = hashlib.sha256(content).hexdigest()
            head = "version https://git-lfs.github.com/spec/v1"
            content = f"{head}\noid sha256:{sha256}\nsize {size}\n".encode()
            known = {"oid": sha256, "sha256": sha256, "size": size, "pointerSize": len(content)}
            found["lfs"] = known
        return found | {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}

    def _entries(self, commit):
        """Return how a tree lists all files and folders of a commit, by path."""
        found, last = {}, {"id": commit.sha, "title": commit.title, "date": commit.date}
        for path, content in commit.files.items():
            for folder in map(str, Path(path).parents[:-1]):
                oid = hashlib.sha1(f"{commit.sha} {folder}".encode()).hexdigest()
                found[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
            found[path] = {"type": "file", "path": path, **self._known(path, content)}
        return {path: found[path] | {"lastCommit": last} for path in sorted(found)}

    def _paged(self, request, entries):
        start, headers = int(request.query.get("cursor", ["0"])[0]), {}
        if (stop := start + self.page_size) < len(entries):
            path = re.sub(r"[?&]cursor=\d+", "", request.path)
            joint = "&" if "?" in path else "?"
            headers["Link"] = f'<{self.endpoint}{path}{joint}cursor={stop}>; rel="next"'
        return _json(entries[start:stop], **headers)


def _settings(name):
    """Return the constants of a module as today's environment makes them."""
    spec = find_spec(name)
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return {name: value for name, value in vars(fresh).items() if name.isupper()}
