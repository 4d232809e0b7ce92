"""Looking up models and data sets: the cache, the Hub, and why the Hub doesn't say."""

import time

import pytest
import tiny
from hub_server import never, reset, slow, status
from huggingface_hub import constants
from on_the_hub import DISTILBERT, model_files

from angels_share.errors import UserError
from angels_share.hub import asking
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate


@pytest.fixture
def files(tmp_path):
    return model_files(tmp_path / "m")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Note the pauses instead of making them."""
    pauses = []
    monkeypatch.setattr(asking.time, "sleep", pauses.append)
    return pauses


def test_a_short_name_is_found_and_its_commit_recorded(hub, files):
    """Prevents a result without the commit that it was made from."""
    sha = hub.add(DISTILBERT, files)
    found = locate("distilbert")
    assert (found.kind, found.source, found.revision) == ("hub", DISTILBERT, sha)
    assert locate("distilbert") == found
    assert len(hub.requests) == 1  # or every part of a command would ask again


def test_an_older_id_leads_to_the_same_repository(hub, files):
    """Prevents the ids of older papers and scripts from failing."""
    sha = hub.add(DISTILBERT, files, renamed_from=("distilbert-base-uncased",))
    assert locate("distilbert-base-uncased").revision == sha
    hub.add("someone/new", files, renamed_from=("someone/old",))
    assert model_folder(locate("someone/old")).name == hub.commits("someone/new")[0].sha


@pytest.mark.parametrize("how", ["gone", "offline"])
def test_what_was_fetched_once_needs_no_server(how, hub, files, forget, monkeypatch):
    """Prevents the second command of a train ride from failing although all files are there."""
    sha = hub.add(DISTILBERT, files)
    cold = model_folder(locate("distilbert"))
    forget()
    with hub.gone():
        if how == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        asked = len(hub.requests)
        started = time.monotonic()
        found = locate("distilbert")
        assert (found.kind, found.revision) == ("cache", sha)
        assert model_folder(found) == cold
        assert time.monotonic() - started < 2
        with pytest.raises(UserError, match="neither a folder nor in the local cache") as error:
            locate("bert")
        reason = {"gone": "can't be reached (Connection refused)", "offline": "HF_HUB_OFFLINE"}
        assert reason[how] in str(error.value)
        assert "`python -m eval_harness fetch --model …`" in str(error.value)
    assert len(hub.requests) == asked


def test_a_newer_commit_is_told_and_not_taken(hub, files, forget, capsys):
    """Prevents a number from changing since somebody pushed to the model, or in silence not."""
    old = hub.add(DISTILBERT, files)
    model_folder(locate("distilbert"))
    new = hub.commit(DISTILBERT, {"README.md": b"# Newer\n"})
    forget()
    capsys.readouterr()
    assert locate("distilbert").revision == old
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert new[:8] in said
    assert old[:8] in said
    assert model_folder(locate("distilbert@main")).name == new
    forget()
    assert locate("distilbert").revision == new  # what was taken once is what is used
    assert capsys.readouterr().err == ""


def test_pins(hub, files, forget):
    """Prevents a commit, a tag or a branch from being refused or read as another one."""
    first = hub.add(DISTILBERT, files)
    hub.tag(DISTILBERT, "v1")
    hub.branch(DISTILBERT, "next/one")
    last = hub.commit(DISTILBERT, {"README.md": b"# Newer\n"})
    beside = hub.commit(DISTILBERT, {"README.md": b"# Other\n"}, branch="next/one")
    pins = {first: first, "v1": first, "next/one": beside, "main": last}
    for reference, sha in pins.items():
        folder = model_folder(locate(f"distilbert@{reference}"))
        assert folder.name == sha
    forget()
    with hub.gone():
        for reference, sha in pins.items():
            assert locate(f"{DISTILBERT}@{reference}").revision == sha
    with pytest.raises(UserError, match=r"^model 'distilbert' has no revision 'v2' on the Hub$"):
        locate("distilbert@v2")
    with pytest.raises(UserError, match="is no commit, tag or branch"):
        locate("distilbert@../../elsewhere")


def test_a_pinned_commit_that_is_cached_is_not_asked_for(hub, files, forget):
    """Prevents a pinned run from depending on a server that it has no question for."""
    sha = hub.add(DISTILBERT, files)
    model_folder(locate(f"distilbert@{sha}"))
    forget()
    asked = len(hub.requests)
    model_folder(locate(f"distilbert@{sha}"))
    assert len(hub.requests) == asked


PASSING = {
    "500": status(500),
    "503": status(503),
    "429": status(429, retry_after=7),
    "reset": reset(),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_error_passes(name, hub, files, no_pauses, capsys):
    """Prevents one bad answer of a busy server from ending a command."""
    sha = hub.add(DISTILBERT, files)
    hub.fail("/api/models/", PASSING[name], PASSING[name])
    assert locate("distilbert").revision == sha
    assert no_pauses == ([7, 7] if name == "429" else [1, 2])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "trying again in" in said[0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(500), "the Hub answers 500"),
        (status(429), r"the Hub answers 429 \(too many requests\)"),
        (reset(), "was cut off"),
    ],
)
def test_an_error_that_stays_has_its_own_name(fault, said, hub, files, no_pauses):
    """Prevents every failure from being called a Hub that can't be reached."""
    hub.add(DISTILBERT, files)
    hub.fail("/api/models/", *[fault] * 9)
    with pytest.raises(UserError, match=f"^model {DISTILBERT}: .*{said}"):
        locate("distilbert")
    assert no_pauses == [1, 2, 4, 8]


def test_a_server_that_asks_for_an_hour(hub, files, no_pauses):
    """Prevents a command from waiting for an hour, or from asking again too early."""
    hub.add(DISTILBERT, files)
    hub.fail("/api/models/", status(429, retry_after=3600))
    with pytest.raises(UserError, match=r"429 .*asks to wait for 3600 s: try again then$"):
        locate("distilbert")
    assert no_pauses == []


def test_a_slow_server_is_waited_for(hub, files, monkeypatch, capsys):
    """Prevents a healthy Hub from being refused since it, or this machine, is busy."""
    sha = hub.add(DISTILBERT, files)
    monkeypatch.setattr(asking, "QUIET_SECONDS", 0.2)
    hub.fail("/api/models/", slow(1.0))
    assert locate("distilbert").revision == sha
    assert f"model {DISTILBERT}: waiting for {hub.endpoint}" in capsys.readouterr().err


def test_packets_that_vanish(hub, files, monkeypatch, capsys):
    """Prevents a command that hangs, or that says nothing while it waits."""
    hub.add(DISTILBERT, files)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(asking, "QUIET_SECONDS", 0.2)
    hub.fail("/api/models/", never())
    started = time.monotonic()
    with pytest.raises(UserError, match="gave no answer in"):
        locate("distilbert")
    assert time.monotonic() - started < 4
    assert capsys.readouterr().err.count("waiting for") == 1


def test_an_address_that_does_not_exist(hub, monkeypatch):
    """Prevents a missing network from being tried again and again."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://no-such-host.invalid")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"http://no-such-host\.invalid can't be reached"):
        locate("distilbert")
    assert time.monotonic() - started < 2


def test_a_name_that_the_hub_does_not_know(hub):
    """Prevents a mistyped name from passing for a network that is down."""
    with pytest.raises(UserError, match=r"^no model 'distlbert': .*did you mean 'distilbert'\?$"):
        locate("distlbert")


def test_a_private_repository_is_not_there_for_others(hub, files, tmp_path, monkeypatch):
    """Prevents a private model from failing in another way than the Hub shows it."""
    hub.add("someone/secret", files, private=True)
    with pytest.raises(UserError, match="none that you may read"):
        locate("someone/secret")


def test_a_wrong_token_is_named(server, files, tmp_path, forget):
    """Prevents hours of looking for a network fault behind an expired token."""
    forget()
    server.add(DISTILBERT, files)
    with (
        server.used(tmp_path / "home", token="hf_expired"),
        pytest.raises(UserError, match="refuses your token, which is wrong or expired") as error,
    ):
        locate("distilbert")
    assert "hf_expired" not in str(error.value)


def test_a_gate_shows_before_anything_is_fetched(hub, files):
    """Prevents a gate from showing when all data are there and a worker runs."""
    hub.add("someone/gated", files, gated="manual")
    with pytest.raises(UserError) as error:
        locate("someone/gated")
    assert f"is gated: ask for access on {hub.endpoint}/someone/gated" in str(error.value)
    assert hub.asked("/resolve/") == []


def test_a_gate_that_is_open(server, files, tmp_path, forget):
    """Prevents a user who was let in from being refused."""
    forget()
    sha = server.add("someone/gated", files, gated="auto")
    token = server.token("me", access=("someone/gated",))
    with server.used(tmp_path / "home", token=token):
        assert model_folder(locate("someone/gated")).name == sha


def test_a_cache_that_cannot_be_written(hub, files, tmp_path, monkeypatch):
    """Fault 13: prevents a download that fails only when it is over."""
    hub.add(DISTILBERT, files)
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "taken" / "hub"))
    with pytest.raises(UserError, match=r"the Hub cache.*choose another path"):
        locate("distilbert")


def test_a_folder(tmp_path):
    """Prevents a folder from being looked up on the Hub, and one without a model from loading."""
    path = tiny.folder(tmp_path / "model", tiny.distilbert(), tiny.wordpiece())
    assert locate(str(path)).kind == "folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        locate(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="neither a folder nor a name on the Hub"):
        locate(str(tmp_path / "nothing"))


def test_offline_a_mistyped_name_has_its_suggestion():
    """Fault 19: prevents a name that needs the network from ending in a traceback or a wait."""
    with pytest.raises(UserError, match="did you mean 'distilbert'"):
        locate("distlbert")


def test_no_home(run_script):
    """Fault 13: prevents a machine without HOME from ending in a traceback."""
    ended = run_script("run_glue.py", "--model", "distilbert", HOME="", HF_HOME="")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
