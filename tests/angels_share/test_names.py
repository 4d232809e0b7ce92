"""Names of models: short names, mistyped ones, and errors without a network."""

import time
from unittest.mock import Mock

import pytest
import tiny

from angels_share import names
from angels_share.errors import UserError
from angels_share.names import SHORT_NAMES, locate, nearest, short_name_of


def put_in_cache(cache, repo_id, revision="abc123", *, what="model"):
    root = cache / f"{what}s--{repo_id.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    return snapshot


@pytest.fixture
def hub(monkeypatch):
    """Let a test choose what the Hub answers, although the suite is offline."""
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE")

    def answers_with(look_up):
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", look_up)

    return answers_with


def test_every_name_is_in_the_table_once():
    """Prevents a short name that means two models."""
    every = [name for row in SHORT_NAMES for name in row.names]
    assert len(every) == len(set(every))
    assert short_name_of("distilbert").repo_id == "distilbert/distilbert-base-uncased"
    assert short_name_of("bert-base-uncased").short == "bert"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("distlbert", "distilbert"), ("BERT", "bert"), ("distil-roberta", "distilroberta")],
)
def test_the_nearest_name(typed, meant):
    """Prevents a suggestion that is further off than what was meant."""
    assert nearest(typed, [row.short for row in SHORT_NAMES]) == f"; did you mean '{meant}'?"
    assert nearest("zzzzzz", ["bert"]) == ""


def test_a_folder(tmp_path):
    """Prevents a folder from being looked up on the Hub, and one without a model from loading."""
    path = tiny.folder(tmp_path / "model", tiny.distilbert(), tiny.wordpiece())
    assert locate(str(path)).kind == "folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        locate(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="neither a folder nor a name on the Hub"):
        locate(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "cached_id", ["distilbert/distilbert-base-uncased", "distilbert-base-uncased"]
)
def test_the_local_cache_comes_before_the_network(cached_id):
    """Prevents a model that was fetched under its older id from being asked for again."""
    put_in_cache(names.cache_folder(), cached_id)
    found = locate("distilbert")
    assert (found.kind, found.source, found.revision) == ("cache", cached_id, "abc123")


def test_a_torn_cache_entry_is_not_there():
    """Prevents a half-fetched model from passing for one that is there."""
    snapshot = put_in_cache(names.cache_folder(), "distilbert/distilbert-base-uncased")
    (snapshot / "config.json").unlink()
    with pytest.raises(UserError, match="neither a folder nor in the local cache"):
        locate("distilbert")


def test_a_data_set_is_found_in_the_cache():
    """Prevents data sets from being told by another rule than models."""
    put_in_cache(names.cache_folder(), "nyu-mll/glue", what="dataset")
    assert locate("nyu-mll/glue", what="dataset").revision == "abc123"
    with pytest.raises(UserError, match="--repo-type dataset"):
        locate("some/data", what="dataset")


def test_offline_the_line_names_the_ways_that_work():
    """Fault 19: prevents a name that needs the network from ending in a traceback or a wait."""
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        locate("distilbert")
    assert time.monotonic() - started < 2
    for part in ("give a folder", "hf download distilbert/distilbert-base-uncased", "cache"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="did you mean 'distilbert'"):
        locate("distlbert")


def test_a_hub_that_does_not_answer_is_waited_for_two_seconds(hub):
    """Prevents a host name that never resolves from holding up the command."""
    hub(lambda *_, **__: time.sleep(30))
    started = time.monotonic()
    with pytest.raises(UserError, match="the Hub can't be reached"):
        locate("distilbert")
    assert time.monotonic() - started < 2


def test_a_name_that_the_hub_does_not_know(hub):
    """Prevents a mistyped name from passing for a network that is down."""
    from huggingface_hub.errors import RepositoryNotFoundError

    def not_there(*_, **__):
        raise RepositoryNotFoundError("404", response=Mock(headers={}))

    hub(not_there)
    with pytest.raises(UserError, match=r"no model 'distlbert'.*did you mean 'distilbert'"):
        locate("distlbert")


def test_a_name_that_the_hub_knows(hub):
    """Prevents a result without the revision that it was made from."""

    class Info:
        sha = "f00d"

    hub(lambda *_, **__: Info())
    found = locate("distilbert")
    assert (found.kind, found.revision) == ("hub", "f00d")


def test_a_cache_that_cannot_be_written(hub, monkeypatch, tmp_path):
    """Fault 13: prevents a download that fails only when it is over."""

    class Info:
        sha = "f00d"

    taken = tmp_path / "taken"
    taken.write_text("")
    monkeypatch.setattr(names, "cache_folder", lambda: taken / "hub")
    hub(lambda *_, **__: Info())
    with pytest.raises(UserError, match=r"the Hub cache.*choose another path"):
        locate("distilbert")


def test_no_home(run_script):
    """Fault 13: prevents a machine without HOME from ending in a traceback."""
    ended = run_script("run_glue.py", "--model", "distilbert", HOME="", HF_HOME="")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
