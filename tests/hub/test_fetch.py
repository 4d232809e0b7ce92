"""Downloads: what is needed and nothing else, through a server's bad moments, with one bar."""

import io
import json
import sys

import pytest
from disks import fill, small_disk
from hub_server import half, lost, reset, slow, status
from huggingface_hub import constants, hf_hub_download
from on_the_hub import (
    DISTILBERT,
    add_distilbert_and_glue,
    data_files,
    model_files,
)
from tasks_on_disk import as_glue
from transformers import AutoModel

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.hub import asking, fetch
from angels_share.hub.cache import cache_folder
from angels_share.hub.fetch import download, files_of_model, model_folder
from angels_share.hub.locate import locate
from angels_share.tokenizing import load_tokenizer
from distil_trainer.data.corpus import prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions
from distil_trainer.data.sources import find_sources
from eval_harness.commands import fetch as fetch_command
from eval_harness.data.sources import wanted_files
from eval_harness.data.splits import load_task
from eval_harness.runs.models import identify
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.lookup import task_named, tasks_named
from eval_harness.tasks.registry import GLUE

SPLITS = ("train", "validation")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_models_files_and_no_others(hub, tmp_path):
    """Prevents gigabytes of other frameworks' weights, and a pickle, from being fetched."""
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    located = locate("distilbert")
    small = {"README.md", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names_in(model_folder(located, weights=False)) == small
    folder = model_folder(located)
    assert names_in(folder) == small | {"model.safetensors"}
    asked = len(hub.requests)
    AutoModel.from_pretrained(folder)
    load_tokenizer("distilbert")
    load_tokenizer(located.source, located.revision)
    assert len(hub.requests) == asked


def test_sharded_weights(hub, tmp_path):
    """Prevents a large model from being fetched in part."""
    files = model_files(tmp_path / "m")
    weights = files.pop("model.safetensors")
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    files |= {name: weights + name.encode() for name in names}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.add("someone/large", files)
    folder = model_folder(locate("someone/large"))
    assert set(names) <= names_in(folder)
    (folder / names[1]).unlink()
    assert files_of_model(locate("someone/large")).missing == [(names[1], len(files[names[1]]))]


def test_pickled_weights_are_refused_before_anything_is_fetched(hub, tmp_path):
    """Fault 18: prevents weights that can run code from being fetched at all."""
    files = model_files(tmp_path / "m")
    del files["model.safetensors"]
    hub.add("someone/old", files)
    with pytest.raises(UserError, match="only pickled weights"):
        model_folder(locate("someone/old"))
    assert hub.asked("/resolve/") == []


FAULTS = {
    "reset": reset(),
    "lost": lost(),
    "half": half(),
    "500": status(500),
    "429": status(429, retry_after=1),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("path", [r"/cdn/.*safetensors", r"resolve/.*config\.json"])
def test_weights_survive_a_bad_moment(name, path, hub, tmp_path, caplog, capsys):
    """Prevents one reset in hundreds of megabytes from ending the command before it trains."""
    files = model_files(tmp_path / "m")
    hub.add(DISTILBERT, files)
    hub.fail(path, FAULTS[name], FAULTS[name], method="GET")
    folder = model_folder(locate("distilbert"))
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (folder / file).read_bytes() == files[file]
    said = capsys.readouterr()
    assert "Signature" not in said.out + said.err + caplog.text  # lets anybody download


@pytest.mark.parametrize("name", FAULTS)
def test_data_survive_a_bad_moment(name, hub, tmp_path):
    """Prevents the chances of nine data sets from adding up to a command that ends."""
    hub.add("nyu-mll/glue", data_files(tmp_path / "d", "rte", "cola"), what="dataset")
    hub.fail("/cdn/", FAULTS[name], FAULTS[name], FAULTS[name], method="GET")
    download(wanted_files(tasks_named(["rte", "cola"]), lambda _: SPLITS, None))
    asked = len(hub.requests)
    assert len(load_task(task_named("rte"), None).train) > 0
    assert len(hub.requests) == asked


def test_a_server_that_stays_broken_has_its_own_name(hub, tmp_path):
    """Prevents a download that fails from being called a wrong folder name."""
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    hub.fail("/cdn/", *[status(500)] * 50)
    with pytest.raises(UserError, match=f"^model {DISTILBERT}: the Hub answers 500"):
        model_folder(locate("distilbert"))


def test_all_tasks_are_fetched_at_once_with_one_bar(hub, tmp_path, monkeypatch):
    """Prevents a bar a file, and data sets that wait for each other."""
    names = list(GLUE)
    hub.add("nyu-mll/glue", data_files(tmp_path / "d", *names), what="dataset")
    hub.fail("/cdn/", *[slow(0.3)] * 8)
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(fetch, "_DELAY", 0)
    wanted = wanted_files(tasks_named(GLUE), lambda task: ("train", *task.evaluation), None)
    assert [each.repo_id for each in wanted] == ["nyu-mll/glue"]
    download(wanted)
    said = screen.getvalue()
    assert {part[:9] for part in said.split("\r") if part.strip()} == {"download:"}
    assert said.count("\n") == 0  # bars of files would leave lines
    first = [request for request in hub.requests if "/cdn/" in request.path][:8]
    assert all(request.fault == "slow" for request in first)  # eight were under way together
    for name in names:
        assert len(load_task(task_named(name), None).train) > 0


def test_an_interrupted_download_is_not_taken_for_a_whole_one(hub, tmp_path):
    """Prevents a model without its tokenizer's settings from being used after a kill."""
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    hub.fail(r"tokenizer_config\.json", *[status(404)] * 9)
    with pytest.raises(UserError):
        model_folder(locate("distilbert"), weights=False)
    assert files_of_model(locate("distilbert"), weights=False) is not None


@pytest.mark.parametrize("name", ["mnli", "stsb"])
def test_the_hub_gives_what_files_give(name, hub, tmp_path):
    """Prevents the Hub's data from being other data, or from an unknown revision."""
    task = task_named(name)
    sha = hub.add("nyu-mll/glue", data_files(tmp_path / "d", name), what="dataset")
    data = load_task(task, None, test=True)
    assert (data.source, data.revision) == (f"hub:nyu-mll/glue/{name}", sha)
    assert data.content == load_task(task, as_glue(tmp_path, task)).content
    assert all(split.labels is None for split in data.test)


def test_data_can_be_pinned(hub, tmp_path):
    """Prevents the newest data from being used where older ones are asked for."""
    first = hub.add("nyu-mll/glue", data_files(tmp_path / "d", "cola"), what="dataset")
    hub.tag("nyu-mll/glue", "v1", what="dataset")
    last = hub.commit("nyu-mll/glue", {"README.md": b"# Newer"}, what="dataset")
    revisions = {first: first, "v1": first, "main": last, None: last}
    for given, sha in revisions.items():
        assert load_task(task_named("cola"), None, revision=given).revision == sha


def test_a_split_that_is_missing_is_named(hub, tmp_path):
    """Prevents a library's traceback instead of one line."""
    files = data_files(tmp_path / "d", "sst2")
    del files["sst2/validation-00000-of-00001.parquet"]
    hub.add("nyu-mll/glue", files, what="dataset")
    with pytest.raises(UserError, match="BuilderConfig 'sst2' not found") as error:
        load_task(task_named("sst2"), None)
    assert "\n" not in str(error.value)


def test_a_model_is_known_by_its_revision(hub, tmp_path):
    """Prevents a result of an older revision from passing for the newest one's."""
    sha = hub.add(
        DISTILBERT, model_files(tmp_path / "m"), renamed_from=("distilbert-base-uncased",)
    )
    for name in ("distilbert-base-uncased", f"distilbert@{sha}"):
        model = identify(name)
        assert model.key == f"distilbert-{sha[:8]}"
        assert (model.name, model.teacher, model.revision) == ("distilbert", "bert", sha)


def test_data_in_a_layout_of_their_own(hub, tmp_path, forget, capsys):
    """Prevents a custom task on the Hub from needing the server again, or from being cut."""
    rows = {split: [f"{n} good,{n % 2}" for n in range(8)] for split in ("train", "test")}
    files = {f"{split}.csv": "\n".join(["text,label", *rows[split]]).encode() for split in rows}
    readme = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {split}.csv\n" for split in rows
    )
    hub.add("someone/stars", {**files, "README.md": (readme + "---\n").encode()}, what="dataset")
    recipe = tmp_path / "stars.yaml"
    recipe.write_text(
        "name: stars\nhub: someone/stars\ncolumns: [text]\nlabels: ['0', '1']\n"
        "primary: [accuracy]\nevaluation: [test]\n"
    )
    task = read_task(recipe)
    words = ["--tasks", str(recipe)]
    assert run_command(fetch_command.COMMAND, [*words, "--dry_run"]) == 0
    assert "dataset someone/stars@" in capsys.readouterr().out
    assert not hub.asked("/cdn/|resolve/.*csv", "GET")
    data = load_task(task, None)
    assert len(data.train) == len(data.evaluation[0]) == 8
    forget()
    with hub.gone():
        again = load_task(task, None)
    assert (again.content, again.revision) == (data.content, data.revision)


@pytest.mark.parametrize("name", FAULTS)
def test_a_corpus_is_pinned_and_kept(name, hub, tmp_path, forget):
    """Prevents a corpus that changes under its name, and one that needs the server again."""
    lines = "\n".join(json.dumps({"text": f"the old river {n}"}) for n in range(20)).encode()
    first = hub.add("someone/wiki", {"train.jsonl": lines}, what="dataset")
    hub.fail("train.jsonl", FAULTS[name], method="GET")
    (source,) = find_sources(["someone/wiki"])
    texts = list(source.texts())
    assert len(texts) == 20
    assert source.name == f"someone/wiki@{first}"
    hub.commit("someone/wiki", {"train.jsonl": lines + b'\n{"text": "one more"}'}, what="dataset")
    forget()
    with hub.gone():
        (again,) = find_sources(["someone/wiki"])
        assert list(again.texts()) == texts
        assert again.identity == source.identity
    (pinned,) = find_sources([source.name])
    assert list(pinned.texts()) == texts
    (newest,) = find_sources(["someone/wiki@main"])
    assert len(list(newest.texts())) == 21
    assert newest.identity != source.identity


def test_a_streamed_corpus_survives_a_bad_moment(hub, tmp_path):
    """Prevents a night of training from ending at one reset."""
    lines = "\n".join(json.dumps({"text": f"the old river {n}"}) for n in range(20)).encode()
    hub.add("someone/wiki", {"train.jsonl": lines}, what="dataset")
    hub.fail("resolve/.*train.jsonl", reset(), status(500), method="GET")
    (source,) = find_sources(["someone/wiki"], streaming=True)
    assert len(list(source.texts())) == 20


def test_a_prepared_corpus_needs_no_server(hub, tmp_path, forget):
    """Prevents a resumed run on a compute node from asking for a text that it has."""
    lines = "\n".join(json.dumps({"text": "the old river sleeps " * 4}) for _ in range(20)).encode()
    hub.add("someone/wiki", {"train.jsonl": lines}, what="dataset")
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    options = CorpusOptions(max_length=32)

    def prepare():
        return prepare_corpus(
            ["someone/wiki"],
            load_tokenizer("distilbert"),
            cache_dir=tmp_path / "c",
            options=options,
        )

    made = prepare()
    forget()
    with hub.gone():
        assert prepare().fingerprint == made.fingerprint


def test_the_command_fills_the_cache(hub, tmp_path, forget, capsys):
    """Prevents a compute node without a network from having to be fed by hand."""
    model, data = add_distilbert_and_glue(hub, tmp_path, "rte")
    words = ["--model", "distilbert", "--tasks", "rte"]
    assert run_command(fetch_command.COMMAND, [*words, "--dry_run"]) == 0
    planned = capsys.readouterr().out
    assert f"model {DISTILBERT}@{model}: " in planned
    assert f"dataset nyu-mll/glue@{data}: " in planned
    assert not any(path.is_file() for path in cache_folder().rglob("*.safetensors"))
    forget()
    assert run_command(fetch_command.COMMAND, words) == 0
    forget()
    with hub.gone():
        assert identify("distilbert").revision == model
        assert load_task(task_named("rte"), None, test=True).revision == data
    newer = hub.commit(DISTILBERT, {"README.md": b"# Newer\n"})
    forget()
    assert run_command(fetch_command.COMMAND, words) == 0
    assert identify("distilbert").revision == newer
    assert run_command(fetch_command.COMMAND, []) == 2


def test_a_disk_without_room(hub, tmp_path, monkeypatch):
    """Fault 8: prevents a full disk from being called a network that is down."""
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    with small_disk(tmp_path / "small", "1m") as disk:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(disk))
        fill(disk, leave=20_000)
        with pytest.raises(UserError, match=r"can't be written to the cache: the disk is full"):
            model_folder(locate("distilbert"))


def test_an_update_that_was_interrupted_leaves_the_old_one(hub, tmp_path, forget):
    """Prevents a kill in the middle of an update from taking away what was whole before."""
    old = hub.add(DISTILBERT, model_files(tmp_path / "m"))
    model_folder(locate("distilbert"))
    new = hub.commit(DISTILBERT, {"model.safetensors": b"other weights"})
    hub.fail("/cdn/", *[status(404)] * 9, method="GET")
    forget()
    with pytest.raises(UserError):
        model_folder(locate("distilbert@main"))
    forget()
    with hub.gone():
        assert model_folder(locate("distilbert")).name == old
    hub._faults.clear()
    forget()
    model_folder(locate("distilbert@main"))
    forget()
    with hub.gone():
        assert locate("distilbert").revision == new


def test_a_cache_that_another_program_filled_in_part(hub, tmp_path, forget):
    """Prevents a tokenizer without its settings from reading a text in another way."""
    files = model_files(tmp_path / "m")
    sha = hub.add(DISTILBERT, files)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        hf_hub_download(DISTILBERT, name)
    with hub.gone(), pytest.raises(UserError, match="can't be reached"):
        model_folder(locate("distilbert"))
    forget()
    folder = model_folder(locate("distilbert"))
    assert (folder.name, (folder / "tokenizer_config.json").exists()) == (sha, True)


def test_all_in_the_cache_needs_no_network_to_be_fetched(hub, tmp_path, forget, capsys):
    """Prevents `fetch` from failing on a train although there is nothing to fetch."""
    add_distilbert_and_glue(hub, tmp_path, "rte")
    words = ["--model", "distilbert", "--tasks", "rte"]
    assert run_command(fetch_command.COMMAND, words) == 0
    forget()
    with hub.gone():
        assert run_command(fetch_command.COMMAND, words) == 0
        lacking = [*words, "cola"]
        assert run_command(fetch_command.COMMAND, lacking) == 2
    assert "CoLA is not in the local cache" in capsys.readouterr().err
    assert run_command(fetch_command.COMMAND, ["--corpus", "someone/nope", "--dry_run"]) == 2


def test_a_cache_that_can_only_be_read(hub, tmp_path, forget, monkeypatch):
    """Prevents a shared cache of a cluster, with all in it, from being refused."""
    hub.add(DISTILBERT, model_files(tmp_path / "m"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
                 "README.md"):  # fmt: skip
        hf_hub_download(DISTILBERT, name)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fetch, "note_files", refused)  # as root writes anywhere
    asked = len(hub.asked("/resolve/"))
    assert (model_folder(locate("distilbert")) / "model.safetensors").exists()
    assert len(hub.asked("/resolve/")) == asked
