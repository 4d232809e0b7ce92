"""The tests' own Hub, driven by the real clients: a fault in it would look like one in ours."""

import io
import json
import os
import random
import struct

import hub_server
import pyarrow
import pyarrow.parquet
import pytest
import tiny
from hub_server import Hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_download,
    model_info,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http, http_backoff

# What the client is built on; older ones are on the other.
transport = vars(_http).get("httpx2") or _http.httpx
LARGE = random.Random(0).randbytes(3 << 20)
FILES = {"config.json": b"{}", "model.safetensors": LARGE, "a/b/c.txt": b"deep", "a/d.txt": b"less"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that this process uses, with small pages."""
    with Hub(page_size=2) as hub:
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


@pytest.fixture
def pauses(monkeypatch):
    """The client's pauses, which are noted instead of made."""
    made = []
    monkeypatch.setattr(_http.time, "sleep", made.append)
    return made


def add(**files):
    """Return the operations that add files, dots written as two underscores."""
    return [CommitOperationAdd(name.replace("__", "."), data) for name, data in files.items()]


def parquet(rows):
    """Return a parquet file with so many rows."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"line {i}" for i in range(rows)]}), file)
    return file.getvalue()


# Reading


@pytest.mark.parametrize("what", ["model", "dataset"])
def test_a_file_by_each_kind_of_revision(hub, what):
    """Prevents a download that is another commit's, or is fetched twice."""
    first = hub.add("me/it", FILES, what=what)
    hub.tag("me/it", "v1", what=what)
    hub.branch("me/it", "next/try", what=what)
    second = hub.commit("me/it", {"config.json": b"new"}, what=what, removed=["a/d.txt"])

    def read(name, revision):
        path = hf_hub_download("me/it", name, revision=revision, repo_type=what)
        with open(path, "rb") as file:  # noqa: PTH123
            return path.split("/snapshots/")[1].split("/")[0], file.read()

    for _ in ("cold", "from the cache"):
        for revision in (first, "v1", "next/try"):
            assert read("config.json", revision) == (first, b"{}")
            assert read("model.safetensors", revision) == (first, LARGE)
        for revision in (second, second[:9], "main", None):
            assert read("config.json", revision) == (second, b"new")
    assert len(hub.asked("config.json", "GET")) == 2
    assert len(hub.asked("/cdn/", "GET")) == 1
    assert len(hub.asked(f"{first}/config.json")) == 2  # a commit in the cache isn't asked for


def test_a_snapshot_over_several_pages(hub, tmp_path):
    """Prevents a list that ends with its first page."""
    sha = hub.add("me/it", FILES)
    folder = tmp_path / "home/hub/models--me--it/snapshots" / sha
    for _ in ("cold", "from the cache"):
        assert snapshot_download("me/it") == str(folder)
    got = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
    assert got == FILES
    assert [request.query.get("cursor") for request in hub.asked("/tree/")] == [None, ["2"], ["4"]]


def test_what_a_repository_holds(hub):
    """Prevents sizes, hashes and folders from being told otherwise than the real Hub does."""
    hub.add("me/it", FILES | {"README.md": b"---\nlicense: mit\n---\n"})
    api = HfApi()
    info = api.model_info("me/it", files_metadata=True)
    sizes = {known.rfilename: (known.size, known.lfs and known.lfs.size) for known in info.siblings}
    assert sizes["model.safetensors"] == (len(LARGE), len(LARGE))
    assert sizes["config.json"] == (2, None)
    assert (info.private, info.gated, info.sha) == (False, False, hub.commits("me/it")[-1].sha)
    top = {entry.path: type(entry).__name__ for entry in api.list_repo_tree("me/it", expand=True)}
    assert top.pop("a") == "RepoFolder"
    assert top == dict.fromkeys(("README.md", "config.json", "model.safetensors"), "RepoFile")
    assert [entry.path for entry in api.list_repo_tree("me/it", "a/b")] == ["a/b/c.txt"]
    assert [entry.path for entry in api.get_paths_info("me/it", ["a", "no", "a/d.txt"])] == [
        "a",
        "a/d.txt",
    ]
    assert api.file_exists("me/it", "a/d.txt")
    assert not api.file_exists("me/it", "d.txt")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/it", "nowhere"))


def test_a_renamed_repository(hub):
    """Prevents old short names from being answered as if they were today's."""
    sha = hub.add("us/it", FILES, renamed_from=["it", "others/it"])
    assert model_info("it").id == "us/it"
    assert hf_hub_download("others/it", "model.safetensors", revision=sha)
    assert [request.status for request in hub.asked("^/api")] == [307, 200]
    assert [request.status for request in hub.asked("resolve")] == [307, 302]


def test_a_token_stays_with_the_hub(hub):
    """Prevents a token that leaks to the other host from going unnoticed."""
    hub.add("me/it", FILES, private=True)
    token = hub.token("me")
    assert hf_hub_download("me/it", "model.safetensors", token=token)
    sent = {request.host: request.token for request in hub.requests}
    assert sent == {
        hub.endpoint.removeprefix("http://"): token,
        hub.store.removeprefix("http://"): None,
    }
    link = hub.asked("/cdn/")[0].path
    leak = get_session().get(hub.store + link, headers={"Authorization": f"Bearer {token}"})
    assert leak.status_code == 400


@pytest.mark.parametrize(
    ("kind", "who", "error", "number"),
    [
        ("missing", None, RepositoryNotFoundError, 401),
        ("missing", "other", RepositoryNotFoundError, 404),
        ("private", None, RepositoryNotFoundError, 401),
        ("private", "other", RepositoryNotFoundError, 404),
        ("gated", None, GatedRepoError, 401),
        ("gated", "other", GatedRepoError, 403),
        ("public", "wrong", HfHubHTTPError, 401),
    ],
)
def test_who_may_not_read(hub, kind, who, error, number):
    """Prevents a refusal from reaching the client as another one."""
    for name in ("private", "gated", "public"):
        hub.add(f"me/{name}", FILES, private=name == "private", gated=name == "gated")
    token = hub.token(who) if who == "other" else who and f"hf_{who}"
    api = HfApi(token=token)
    asks = [api.auth_check, lambda repo: api.hf_hub_download(repo, "config.json")]
    if kind == "gated":  # its page is public
        assert api.model_info("me/gated").gated == "auto"
    else:
        asks.append(api.model_info)
    for ask in asks:
        with pytest.raises(error) as caught:
            ask(f"me/{kind}")
        assert type(caught.value) is error
        assert caught.value.response.status_code == number


@pytest.mark.parametrize("kind", ["private", "gated"])
def test_who_may_read(hub, kind):
    """Prevents closed repositories from being closed to everybody."""
    hub.add("me/it", FILES, private=kind == "private", gated=kind == "gated")
    for token in (hub.token("me", can_write=False), hub.token("you", access=["me/it"])):
        api = HfApi(token=token)
        api.auth_check("me/it")
        assert getattr(api.model_info("me/it"), kind)
        assert api.hf_hub_download("me/it", "config.json", force_download=True)


def test_what_is_not_there(hub):
    """Prevents a missing revision or file from looking like a missing repository."""
    hub.add("me/it", FILES)
    with pytest.raises(RevisionNotFoundError):
        model_info("me/it", revision="v2")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("me/it", "config.json", revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("me/it", "vocab.txt")


# Writing


@pytest.mark.parametrize("way", ["xet", "lfs"])
def test_an_upload_arrives_bit_by_bit(hub, way, monkeypatch, tmp_path):
    """Prevents a commit that one of the two ways of uploading would damage, or make twice."""
    hub.use(monkeypatch, tmp_path / "other home", xet=way == "xet")
    floats = struct.pack("<60000f", *(1 + i / 7 for i in range(60000)))
    files = {
        "model.safetensors": LARGE,  # stored as it is
        "lines.txt": b"".join(b"%d lines of text\n" % i for i in range(90000)),
        "sums.safetensors": floats,  # whose bytes are grouped
        "notes/small.txt": b"small",
        "empty.bin": b"",
        "README.md": b"---\nlicense: mit\n---\n# A model\n",
    }
    token = hub.token("me")
    api = HfApi(token=token)
    assert api.create_repo("it", private=True).repo_id == "me/it"
    for _ in ("new", "again"):
        operations = [CommitOperationAdd(*file) for file in files.items()]
        done = api.create_commit("me/it", operations, commit_message="All")
        assert done.oid == hub.commits("me/it")[-1].sha
    got = hub.files("me/it")
    assert got.pop(".gitattributes")
    assert got == files
    assert [commit.title for commit in hub.commits("me/it")] == ["initial commit", "All"]
    assert hub.repo("me/it").private
    with pytest.raises(RepositoryNotFoundError):
        model_info("me/it")
    assert {request.token for request in hub.requests if request.host in hub.endpoint} >= {token}
    assert token not in {request.token for request in hub.requests if request.host in hub.store}
    xorbs = [request.body for request in hub.asked("^/v1/xorbs/")]
    schemes = {scheme for body in xorbs for scheme, _ in hub_server.xorb_chunks(body)}
    assert schemes == ({0, 1, 2} if way == "xet" else set())
    assert len(hub.asked("^/lfs/", "PUT")) == (0 if way == "xet" else 3)
    assert api.hf_hub_download("me/it", "lines.txt")


def test_a_folder_of_a_data_set(hub, tmp_path):
    """Prevents the client's own way for folders from meeting what isn't there."""
    for name, data in FILES.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(data)
    api = HfApi(token=hub.token("me", organizations=["us"]))
    api.create_repo("us/it", repo_type="dataset")
    api.upload_folder(folder_path=tmp_path / "made", repo_id="us/it", repo_type="dataset")
    got = hub.files("us/it", what="dataset")
    assert {name: got[name] for name in FILES} == FILES


def test_a_commit_guarded_by_its_parent(hub):
    """Prevents a push from overwriting what somebody else committed in between."""
    parent = hub.add("me/it", FILES)
    theirs = hub.commit("me/it", {"config.json": b"theirs"})
    api = HfApi(token=hub.token("me"))
    operations = [*add(config__json=b"ours"), CommitOperationDelete("a/")]
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        api.create_commit("me/it", operations, commit_message="Ours", parent_commit=parent)
    assert caught.value.response.status_code == 412
    assert [commit.sha for commit in hub.commits("me/it")] == [parent, theirs]
    operations = [*add(config__json=b"ours"), CommitOperationDelete("a/")]
    api.create_commit("me/it", operations, commit_message="Ours", parent_commit=theirs)
    api.delete_file("model.safetensors", "me/it")
    assert hub.files("me/it") == {"config.json": b"ours"}
    titles = [commit.title for commit in api.list_repo_commits("me/it")]  # over two pages
    assert titles[1:] == ["Ours", "Update", "Add files"]


def test_who_may_not_write(hub):
    """Prevents a push from seeming to work with a token that can't write."""
    hub.add("me/it", FILES)
    reader, other = hub.token("me", can_write=False), hub.token("other", access=["me/it"])
    for token in (reader, other):
        api = HfApi(token=token)
        api.auth_check("me/it")
        writes = [
            lambda api=api: api.create_repo("me/new"),
            lambda api=api: api.auth_check("me/it", write=True),
            lambda api=api: api.create_tag("me/it", tag="v1"),
            lambda api=api: api.create_commit("me/it", add(new=b"1"), commit_message="New"),
        ]
        for write in writes:
            with pytest.raises(HfHubHTTPError) as caught:
                write()
            assert caught.value.response.status_code == 403
    assert HfApi(token=reader).whoami()["auth"]["accessToken"]["role"] == "read"
    for token in (False, "hf_wrong"):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi().create_repo("me/new", token=token)
        assert caught.value.response.status_code == 401
    assert len(hub.commits("me/it")) == 1


def test_a_repository_is_deleted_by_its_owner_alone(hub):
    """Prevents a test in which somebody else's repository, or none, is deleted unseen."""
    hub.add("me/model", FILES)
    api = HfApi()
    with pytest.raises(HfHubHTTPError, match="401"):
        api.delete_repo("me/model")
    with pytest.raises(HfHubHTTPError, match="rights"):
        api.delete_repo("me/model", token=hub.token("you"))
    assert api.repo_exists("me/model")
    mine = hub.token("me")
    api.delete_repo("me/model", token=mine)
    assert not api.repo_exists("me/model")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/model", token=mine)
    api.delete_repo("me/model", token=mine, missing_ok=True)


def test_what_exists_already(hub):
    """Prevents a second push from being taken for a first one."""
    api = HfApi(token=hub.token("me"))
    sha = hub.add("me/it", FILES)
    assert api.create_repo("me/it", exist_ok=True).repo_id == "me/it"
    api.create_tag("me/it", tag="v1", revision=sha)
    api.create_branch("me/it", branch="next/try", revision="v1")
    for again in (
        lambda: api.create_repo("me/it"),
        lambda: api.create_tag("me/it", tag="v1"),
        lambda: api.create_branch("me/it", branch="next/try"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            again()
        assert caught.value.response.status_code == 409
    api.create_commit("me/it", add(new=b"1"), commit_message="New", revision="next/try")
    assert hub.files("me/it", "v1") == hub.files("me/it") == FILES
    assert hub.files("me/it", "next/try") == FILES | {"new": b"1"}


@pytest.mark.parametrize("metadata", ["accuracy: .nan", "just text", "a: !!python/tuple [1]"])
def test_bad_metadata_of_a_card(hub, metadata, monkeypatch):
    """Prevents a card that the real Hub would refuse."""
    hub.add("me/it", FILES)
    api = HfApi(token=hub.token("me"))
    card = f"---\n{metadata}\n---\n".encode()
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.create_commit("me/it", add(README__md=card), commit_message="Card")
    monkeypatch.setattr(HfApi, "_validate_yaml", lambda *_, **__: None)
    with pytest.raises(HfHubHTTPError, match="Bad request for commit endpoint"):
        api.create_commit("me/it", add(README__md=card), commit_message="Card")
    assert hub.files("me/it") == FILES


# What goes wrong


def test_half_a_body_is_resumed(hub, pauses, monkeypatch):
    """Prevents a file from being cut off by a connection that was."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 18)  # less than one isn't resumed
    hub.add("me/it", FILES)
    hub.fail("/cdn/", hub_server.half(), hub_server.half())
    with open(hf_hub_download("me/it", "model.safetensors"), "rb") as file:  # noqa: PTH123
        assert file.read() == LARGE
    ranges = [request.headers["Range"] for request in hub.asked("/cdn/")]
    middle = len(LARGE) // 2
    assert ranges == [None, f"bytes={middle}-", f"bytes={middle + middle // 2}-"]
    assert [request.fault for request in hub.asked("/cdn/")] == ["half", "half", None]


def test_faults_come_in_order_and_pass(hub, pauses):
    """Prevents a test of retries from being about one fault only."""
    hub.add("me/it", FILES)
    hub.fail("me/it", hub_server.status(500), hub_server.status(429, retry_after=7))
    hub.fail("it$", hub_server.reset(), hub_server.slow(0.01), method="GET")
    hub.fail("me/it", hub_server.status(500), method="POST")
    for _ in range(2):
        answer = http_backoff("GET", f"{hub.endpoint}/api/models/me/it")
        assert answer.json()["id"] == "me/it"
    answered = [(request.fault, request.status) for request in hub.requests]
    assert answered[:3] == [("status", 500), ("status", 429), ("reset", None)]
    assert answered[3:] == [("slow", 200), (None, 200)]
    assert 8 in pauses  # what the Hub asked for, and the client's own second


def test_a_refusal_in_given_words(hub):
    """Prevents an error of the Hub from being told without its code and message."""
    hub.add("me/it", FILES)
    hub.fail("/api/models", hub_server.status(401, "Expired", code="RepoNotFound"))
    with pytest.raises(RepositoryNotFoundError, match="Expired"):
        model_info("me/it")
    assert model_info("me/it")


def test_an_answer_that_is_lost(hub):
    """Prevents a commit whose answer never came from being made a second time unseen."""
    hub.add("me/it", FILES)
    hub.fail("/commit/", hub_server.reset(), hub_server.lost())
    api = HfApi(token=hub.token("me"))
    for commits in (1, 2):
        with pytest.raises(transport.NetworkError):
            api.create_commit("me/it", add(new=b"1"), commit_message="New")
        assert len(hub.commits("me/it")) == commits


def test_a_hub_that_does_not_answer(hub):
    """Prevents a client that waits for ever, and a test that does at its end."""
    hub.add("me/it", FILES)
    hub.fail("/api/", hub_server.never(), hub_server.slow(600))
    for _ in range(2):
        with pytest.raises(transport.TimeoutException):
            model_info("me/it", timeout=0.2)
    hub.close()
    assert {request.status for request in hub.requests} <= {None}
    with pytest.raises(transport.ConnectError):
        model_info("me/it")


def test_a_hub_that_is_gone_for_a_while(hub, pauses):
    """Prevents a kept connection, or another port, from hiding that the server is gone."""
    hub.add("me/it", FILES)
    assert hf_hub_download("me/it", "model.safetensors")
    with hub.gone():
        for address in (hub.endpoint, hub.store):
            with pytest.raises(transport.ConnectError):
                get_session().get(address)
        assert hf_hub_download("me/it", "model.safetensors")  # from the cache
        with pytest.raises(LocalEntryNotFoundError):
            hf_hub_download("me/it", "config.json", revision=hub.commits("me/it")[0].sha)
    assert hf_hub_download("me/it", "config.json")


def test_a_range_that_is_not_there(hub):
    """Prevents a resumed download from being sent the wrong part."""
    hub.add("me/it", {"letters": b"abcdef"})
    url = f"{hub.endpoint}/me/it/resolve/main/letters"
    for asked, part in {"0-1": b"ab", "4-": b"ef", "-2": b"ef", "3-99": b"def"}.items():
        answer = get_session().get(url, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part)
    assert get_session().get(url, headers={"Range": "bytes=6-"}).status_code == 416


def test_its_own_mistakes_come_out():
    """Prevents a mistake of this server from being taken for one of the client."""
    with pytest.raises(json.JSONDecodeError), Hub() as hub:  # noqa: PT012
        hub.add("me/it", FILES)
        url = f"{hub.endpoint}/api/models/me/it/preupload/main"
        headers = {"Authorization": f"Bearer {hub.token('me')}"}
        answer = transport.post(url, content=b"{", headers=headers)
        assert answer.status_code == 501
        assert transport.get(f"{hub.endpoint}/nowhere").status_code == 404


def test_blocks_that_repeat_themselves_and_others():
    """Prevents a chunk that hf-xet packs in some other way from being unpacked wrongly."""
    long = b"\xff" * 20 + b"x" * (15 + 255 + 3)
    blocks = [
        bytes([0x35]) + b"abc" + bytes([3, 0]) + bytes([0x10]) + b"!",  # 9 more letters
        bytes([0x0F, 13, 0, 255, 4]) + bytes([0x10]) + b"?",  # across blocks: 278 letters
        bytes([0xF0, 255, 3]) + long[20:],
    ]
    body = b"".join(len(block).to_bytes(4, "little") + block for block in blocks)
    stored = (1 << 31 | 2).to_bytes(4, "little") + b"ok"
    frame = b"\x04\x22\x4d\x18\x40\x40\x00" + body + stored + bytes(4)
    once = b"abc" * 4 + b"!"
    again = (once * 22)[:278]
    assert hub_server.unpack_lz4(frame) == once + again + b"?" + long[20:] + b"ok"
    with pytest.raises(ValueError, match="not an LZ4 frame"):
        hub_server.unpack_lz4(b"something else")


# Who uses it


def test_a_process_that_is_started(run_script, tmp_path):
    """Prevents a command that a test starts from missing the Hub, or the caches it was given."""
    program = "from huggingface_hub import hf_hub_download as get; print(get('me/it', 'a/d.txt'))"
    with Hub() as hub:
        hub.add("me/it", FILES, private=True)
        token = hub.token("me")
        child = run_script("-c", program, **hub.environment(tmp_path / "child", token=token))
        assert child.stdout.startswith(str(tmp_path / "child/hub/models--me--it")), child.stderr
        assert {request.token for request in hub.requests} == {token}


def test_all_is_as_before_afterwards(tmp_path):
    """Prevents a test with a Hub from putting the tests after it online."""
    import datasets.config

    def settings():
        known = {**vars(constants), **vars(datasets.config)}
        return {k: v for k, v in known.items() if k.isupper()}, dict(os.environ)

    before = settings()
    with Hub() as hub, hub.used(tmp_path, token="hf_mine"):
        assert not constants.HF_HUB_OFFLINE
        assert not datasets.config.HF_HUB_OFFLINE
        assert datasets.config.HF_ENDPOINT == constants.ENDPOINT == hub.endpoint
        assert get_token() == "hf_mine"
        assert settings() != before
    assert settings() == before
    assert get_token() is None


def test_a_data_set_by_revision_and_streamed(hub):
    """Prevents the other library from reading another commit, or from asking what isn't there."""
    import datasets

    files = {"data/train-0.parquet": parquet(40), "data/test-0.parquet": parquet(5)}
    sha = hub.add("me/it", files, what="dataset", private=True)
    hub.commit("me/it", {"data/train-0.parquet": parquet(30)}, what="dataset")
    token = hub.token("me")
    read = datasets.load_dataset("me/it", revision=sha, token=token)
    assert {name: len(part) for name, part in read.items()} == {"train": 40, "test": 5}
    rows = datasets.load_dataset("me/it", split="train", streaming=True, token=token)
    assert [row["text"] for row in rows] == [f"line {i}" for i in range(30)]
    assert {request.token for request in hub.asked("/cdn/")} == {None}


def test_a_model_by_name(hub, tmp_path):
    """Prevents `from_pretrained` from needing what this Hub doesn't answer."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tiny.folder(tmp_path / "tiny", tiny.bert(layers=1), tiny.wordpiece())
    files = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    sha = hub.add("us/tiny", files | {"pytorch_model.bin": b"unwanted"}, renamed_from=["tiny"])
    hub.commit("us/tiny", {"config.json": b"broken"})
    assert AutoConfig.from_pretrained("tiny", revision=sha).model_type == "bert"
    assert AutoTokenizer.from_pretrained("tiny", revision=sha)("the river").input_ids
    model = AutoModel.from_pretrained("us/tiny", revision=sha, add_pooling_layer=False)
    assert model.config.num_hidden_layers == 1
    assert not hub.asked("pytorch_model")
    assert [request for request in hub.requests if request.status >= 500] == []
