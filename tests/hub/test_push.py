"""Pushing: what goes up and what never does, in one commit, whole or not at all."""

import json
import os
import re
from pathlib import Path

import pytest
import tiny
import yaml
from hub_server import lost, meanwhile, never, reset, status
from huggingface_hub import constants
from on_the_hub import BERT, model_files
from transformers import AutoModelForMaskedLM, AutoTokenizer

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.hub import asking
from angels_share.hub.push import Destination, push, require_login, upload_of_model
from eval_harness.commands import push as push_command

NAME = "me/student"
PRIVATE = ("/srv/home/someone", "optimizer", "texts of the corpus")


@pytest.fixture
def writer(server, tmp_path, monkeypatch):
    """A Hub that this process uses with a token that may write."""
    token = server.token("me")
    server.use(monkeypatch, tmp_path / "home", token=token)
    return server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)


@pytest.fixture
def student(tmp_path):
    """A student's folder as a finished run leaves it, with much that nobody else should see."""
    folder = tmp_path / "student"
    tiny.folder(folder, tiny.distilbert(), tiny.wordpiece())
    record = {
        "status": "complete",
        "step": 7,
        "teachers": [
            {"name": "/srv/home/someone/teacher", "source": "/srv/home/someone/teacher",
             "revision": None, "sha256": "ab" * 32},
        ],
        "recipe": {"alpha_ce": 5.0, "alpha_mlm": 2.0, "temperature": 2.0},
        "corpus": {"fingerprint": "f" * 16, "sources": [{"name": "a.txt", "identity": "x"}]},
    }  # fmt: skip
    (folder / "distil.json").write_text(json.dumps(record))
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = "/srv/home/someone/teacher"
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin",
                 "pytorch_model.bin", "training_args.json", "trainer_state.json", ".env",
                 "written.json", "log.txt"):  # fmt: skip
        (folder / name).write_text(PRIVATE[1])
    for name in ("corpus/x/train.arrow", "checkpoint-7/model.safetensors", "runs/events"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PRIVATE[2])
    return folder


def pushed(folder, **where):
    place = require_login(Destination(NAME, **where))
    return push(upload_of_model(folder, place), place)


GOES_UP = {
    "README.md", "config.json", "distil.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_a_student_goes_up_and_comes_back(xet, writer, student, monkeypatch, tmp_path):
    """Prevents a push that only a mock ever took: over Xet and over LFS, and loaded again."""
    if not xet:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert pushed(student).startswith(f"pushed: {writer.endpoint}/{NAME}/commit/")
    files = writer.files(NAME)
    assert set(files) - {".gitattributes"} == GOES_UP
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert writer.repo(NAME).private
    used = {"xet": "/v1/xorbs", "lfs": "objects/batch"}
    assert bool(writer.asked(used["xet"])) is xet
    assert bool(writer.asked(used["lfs"])) is not xet
    again = AutoModelForMaskedLM.from_pretrained(NAME)
    ours = AutoModelForMaskedLM.from_pretrained(student).state_dict()
    assert all(bool((ours[name] == value).all()) for name, value in again.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(NAME)) == 160


def test_nothing_private_goes_up(writer, student):
    """Prevents the training text, optimizer states, pickles and local paths from leaking."""
    pushed(student)
    sent = b"".join(request.body for request in writer.requests)
    stored = b"".join(writer.files(NAME).values())
    for secret in PRIVATE:
        assert secret.encode() not in sent
        assert secret.encode() not in stored
    record = json.loads(writer.files(NAME)["distil.json"])
    assert record["teachers"][0]["source"] == "teacher"


@pytest.mark.parametrize("how", ["variable", "login"])
def test_the_token_is_nowhere(how, writer, student, tmp_path, monkeypatch, capsys):
    """Fault 17: prevents a token in a file, a log, a body, or at another host."""
    token = os.environ["HF_TOKEN"]
    if how == "login":  # as `hf auth login` leaves it
        monkeypatch.delenv("HF_TOKEN")
        Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True, exist_ok=True)
        Path(constants.HF_TOKEN_PATH).write_text(token)
    writer.fail("/commit/", status(500))
    pushed(student)
    writer.fail("/commit/", *[status(403, "no")] * 9)
    tiny.folder(student, tiny.distilbert(seed=1), tiny.wordpiece())
    words = [str(student), "--repo_id", NAME]
    monkeypatch.setenv("ANGELS_SHARE_TRACEBACK", "1")
    assert run_command(push_command.COMMAND, words) == 2
    said = capsys.readouterr()
    assert "doesn't let you or your token do this" in said.err
    assert token not in said.out + said.err
    assert any(request.token == token for request in writer.requests)
    for request in writer.requests:
        assert token.encode() not in request.body
        assert token not in request.path
        assert request.host.startswith("127.0.0.1") or request.token != token
    allowed = {Path(constants.HF_TOKEN_PATH)} if how == "login" else set()
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in written if token.encode() in path.read_bytes()} == allowed
    assert token.encode() not in b"".join(writer.files(NAME).values())


def test_the_same_again_makes_no_commit(writer, student):
    """Prevents a history of empty commits."""
    pushed(student)
    before = len(writer.commits(NAME))
    assert (
        pushed(student) == f"{writer.endpoint}/{NAME} (private): nothing new, so no commit was made"
    )
    assert len(writer.commits(NAME)) == before


FAULTS = {
    "500": status(500), "429": status(429, retry_after=1), "reset": reset(), "lost": lost(),
}  # fmt: skip


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
@pytest.mark.parametrize("path", ["/commit/main", "/preupload/", "/revision/main"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_push_survives_a_bad_moment(name, path, xet, writer, student, monkeypatch):
    """Prevents a reset in the last second from losing a push, or from making two commits of it."""
    if not xet:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    writer.fail(path, FAULTS[name], FAULTS[name])
    pushed(student)
    assert set(writer.files(NAME)) - {".gitattributes"} == GOES_UP
    titles = [commit.title for commit in writer.commits(NAME)]
    assert titles.count("Push by Angel's Share") == 1


def test_somebody_elses_commit_in_between(writer, student):
    """Prevents a push from overwriting what somebody wrote into the card a second before."""
    pushed(student)
    tiny.folder(student, tiny.distilbert(seed=1), tiny.wordpiece())

    def write_by_hand():
        card = writer.files(NAME)["README.md"].decode() + "\nA note by hand.\n"
        writer.commit(NAME, {"README.md": card.encode()})

    writer.fail("/commit/main", meanwhile(write_by_hand))
    pushed(student)
    files = writer.files(NAME)
    assert "A note by hand." in files["README.md"].decode()
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert [request.status for request in writer.asked("/commit/main")] == [200, 412, 200]


def test_a_push_is_whole_or_not_there(writer, student):
    """Prevents a card that describes other weights than those beside it."""
    pushed(student)
    before = writer.files(NAME)
    tiny.folder(student, tiny.distilbert(seed=1), tiny.wordpiece())
    writer.fail("/commit/main", *[status(500)] * 9)
    with pytest.raises(UserError, match=f"^pushing to {NAME}: the Hub answers 500"):
        pushed(student)
    assert writer.files(NAME) == before


@pytest.mark.parametrize(
    ("path", "fault", "said"),
    [
        ("whoami", status(401, "Invalid credentials in Authorization header"), "wrong or expired"),
        ("whoami", status(503), "pushing to me/student: the Hub answers 503"),
        ("xet-write-token", status(403, "no"), "pushing to me/student: "),
        ("/v1/xorbs", status(500), "pushing to me/student: "),
        ("/v1/shards", reset(), "pushing to me/student: "),
        ("validate-yaml", status(400, "bad"), "pushing to me/student: "),
    ],
)
def test_what_stays_broken_is_one_line(path, fault, said, writer, student):
    """Prevents a traceback of a library's at the end of a night's training."""
    writer.fail(path, *[fault] * 99)
    with pytest.raises(UserError, match=said) as error:
        pushed(student)
    assert "\n" not in str(error.value)


def test_who_may_push(server, student, tmp_path):
    """Prevents hours of training before a token turns out to be missing or too weak."""
    missing = pytest.raises(UserError, match="needs a token: `hf auth login`")
    with server.used(tmp_path / "a"), missing:
        require_login(Destination(NAME))
    reader = server.token("reader", can_write=False)
    with server.used(tmp_path / "b", token=reader), pytest.raises(UserError, match="may only read"):
        require_login(Destination(NAME))
    with server.used(tmp_path / "c", token=server.token("me")):
        with pytest.raises(UserError, match="not a name on the Hub"):
            require_login(Destination("a/b/c"))
        with pytest.raises(UserError, match="is me's, which may not write for someone-else"):
            require_login(Destination("someone-else/student"))
        for name in ("a--b", "x" * 97, "with a blank"):
            with pytest.raises(UserError, match="not a name on the Hub"):
                require_login(Destination(name))


def test_what_exists_and_is_public(writer, student):
    """Prevents a private student from going to a repository that everybody reads."""
    writer.add(NAME, {"README.md": b"# Mine\n"})
    with pytest.raises(UserError, match=r"it exists and is public: .*--hub_private_repo False"):
        pushed(student)
    assert pushed(student, private=False).startswith("pushed: ")
    assert b"# Mine" in writer.files(NAME)["README.md"]


def test_a_branch(writer, student):
    """Prevents a revision from being ignored."""
    pushed(student, revision="second-try")
    assert "model.safetensors" in writer.files(NAME, "second-try")
    assert "model.safetensors" not in writer.files(NAME)


def test_the_licence_is_the_teachers(writer, student, tmp_path, forget):
    """Prevents a student from losing the licence that it inherits."""
    sha = writer.add(BERT, model_files(tmp_path / "bert", tiny.bert()))
    from angels_share.hub.fetch import model_folder
    from angels_share.hub.locate import locate

    forget()
    model_folder(locate("bert"))
    record = json.loads((student / "distil.json").read_text())
    record["teachers"][0] |= {"name": "bert", "source": BERT, "revision": sha}
    (student / "distil.json").write_text(json.dumps(record))
    pushed(student)
    card = writer.files(NAME)["README.md"].decode()
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["license"], metadata["language"]) == ("apache-2.0", "en")
    assert metadata["base_model"] == BERT
    assert sha[:7] in card


def test_no_model_is_no_push(writer, tmp_path, student):
    """Prevents half a model from going up."""
    (student / "model.safetensors").unlink()
    for folder in (tmp_path / "absent", student):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            pushed(folder)
    assert writer.asked("/repos/create") == []


def test_the_command(writer, student, capsys, tmp_path):
    """Prevents a push that can't be looked at before, or repeated after."""
    words = [str(student), "--repo_id", "student", "--results_dir", str(tmp_path / "none")]
    assert run_command(push_command.COMMAND, [*words, "--dry_run"]) == 0
    listed = capsys.readouterr().out
    assert writer.requests == []
    for name in GOES_UP:
        assert re.search(rf"^{re.escape(name)} +[\d,]+ bytes$", listed, re.MULTILINE), name
    assert "optimizer" not in listed
    assert "# student" in listed
    assert run_command(push_command.COMMAND, words) == 0
    assert capsys.readouterr().out.startswith(f"pushed: {writer.endpoint}/{NAME}/commit/")
    assert run_command(push_command.COMMAND, [*words[:2], "a/b/c"]) == 2


def test_a_damaged_record_is_refused(writer, student):
    """Prevents a record with NaN or none at all from ending in a library's traceback."""
    (student / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        pushed(student)


def test_a_model_of_another_task_is_not_overwritten(writer, student):
    """Prevents a model for CoLA from lying beside the results of one for RTE."""
    config = json.loads((student / "config.json").read_text())
    for task in ("rte", "cola"):
        (student / "config.json").write_text(json.dumps(config | {"finetuning_task": task}))
        if task == "rte":
            pushed(student)
    with pytest.raises(UserError, match="holds a model for rte, and this one is for cola"):
        pushed(student)


def test_a_card_that_is_no_text(writer, student):
    """Prevents a card in another encoding from ending in a traceback, or from being replaced."""
    writer.add(NAME, {"README.md": b"caf\xe9"}, private=True)
    with pytest.raises(UserError, match=r"its README\.md is not UTF-8"):
        pushed(student)


def test_a_server_that_never_answers(writer, student, monkeypatch):
    """Prevents a push that hangs before it has begun."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    writer.fail("whoami", never())
    with pytest.raises(UserError, match="gave no answer in"):
        require_login(Destination(NAME))
