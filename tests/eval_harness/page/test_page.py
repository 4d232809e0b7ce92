"""The page's folder, with a stand-in for npm: what is written, what is refused."""

import base64
import hashlib
import http.client
import io
import json
import os
import re
import tarfile
import threading
from dataclasses import replace

import pytest
import tiny
import torch
import transformers

from angels_share.cli import run_command
from angels_share.errors import RunFailed, UserError
from eval_harness.commands import page as command
from eval_harness.page import answers as torch_part
from eval_harness.page import libraries
from eval_harness.page.serve import server_of

NPM = """#!/bin/sh
echo "$@" >> "{log}"
cp "{archives}/$(basename "${{2%@*}}").tgz" "$5/"
"""


def archive_of(path, files):
    with tarfile.open(path, "w:gz") as opened:
        for name in files:
            content = f"content of {name}".encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha512(path.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm that packs small files of the pinned names; returns its log."""
    folder, log = tmp_path / "bin", tmp_path / "npm.log"
    folder.mkdir()
    pinned = []
    for each in libraries.LIBRARIES:
        path = folder / f"{each.name.rpartition('/')[-1]}.tgz"
        pinned.append(replace(each, integrity=archive_of(path, each.files.values())))
    (folder / "npm").write_text(NPM.format(log=log, archives=folder))
    (folder / "npm").chmod(0o755)
    monkeypatch.setattr(libraries, "LIBRARIES", tuple(pinned))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


def folder_of(path, name="BertForSequenceClassification", **config):
    """A tiny model's folder with an int8 file, which no test here opens."""
    model = tiny.shaken(tiny.bert(model_class=getattr(transformers, name), **config))
    tiny.folder(path, model, tiny.wordpiece())
    (path / "onnx").mkdir()
    (path / "onnx" / "model_quantized.onnx").write_bytes(b"int8")
    return path


def page(*words):
    return run_command(command.COMMAND, list(map(str, words)))


def data_in(folder):
    text = (folder / "index.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_the_folder_has_all_that_the_page_asks_for(npm, tmp_path, capsys):
    """Prevents a page that needs a file which stayed behind, or one from elsewhere."""
    labels = {"id2label": {0: "<bad>", 1: "good"}, "label2id": {"<bad>": 0, "good": 1}}
    model = folder_of(tmp_path / "model", **labels)
    out = tmp_path / "out"
    assert page(model, "--output_dir", out, "--name", "A <b>") == 0
    assert "A <b> in int8, 8 examples" in capsys.readouterr().out
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    text = (out / "index.html").read_text()
    assert {f"lib/{name}" for each in libraries.LIBRARIES for name in each.files} <= found
    assert "lib/onnxruntime-web-LICENSE.txt" in found
    assert {f"model/{name}" for name in ("config.json", "tokenizer.json")} <= found
    assert all(
        f"./{each}" not in text or each in found for each in re.findall(r"lib/[\w.-]+", text)
    )
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "https://" not in text
    assert "<bad>" not in text
    assert "A <b>" not in text
    assert str(tmp_path) not in text
    assert data_in(out)["labels"] == ["<bad>", "good"]
    log = npm.read_text().splitlines()
    assert [line.split()[:3] for line in log] == [
        ["pack", each.spec, "--ignore-scripts"] for each in libraries.LIBRARIES
    ]
    assert page(model, "--output_dir", out) == 0  # an older page is replaced


def test_only_the_pages_own_scripts_may_run(npm, tmp_path):
    """Prevents a security policy that stops the page's scripts, or allows others."""
    page(folder_of(tmp_path / "model"), "--output_dir", tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    scripts = re.findall(r'<script(?! type="application/json)[^>]*>(.*?)</script>', text, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    digests = {
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts
    }
    assert len(scripts) == 3
    assert set(re.findall("'sha256-([^']*)'", policy)) == digests
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")


@pytest.mark.parametrize(
    ("name", "config", "head"),
    [
        ("BertForSequenceClassification", {"num_labels": 3}, "classes"),
        ("BertForSequenceClassification", {"num_labels": 1}, "number"),
        ("BertForTokenClassification", {"num_labels": 3}, "tokens"),
        ("BertForMaskedLM", {}, "mask"),
        ("BertForQuestionAnswering", {}, "span"),
    ],
)
def test_every_head_has_answers(npm, tmp_path, name, config, head):
    """Prevents a kind of model that only fails where a user tries it."""
    out = tmp_path / "out"
    # The sentences of ours have more letters than the tiny model's 64 positions.
    longer = {"max_position_embeddings": 256}
    model = folder_of(tmp_path / "model", name, **config, **longer)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 256}))
    assert page(model, "--output_dir", out) == 0
    data = data_in(out)
    assert data["head"] == head
    assert len(data["examples"]) >= 3
    for example in data["examples"]:
        assert example["key"]
        assert (example["probability"] is None) == (head == "number")


def answers_of_pipelines(model, head, texts):
    """Yield the key and the probability of each text's answer, by the library's own pipelines."""
    if head == "tokens":
        tag = transformers.pipeline("token-classification", model=str(model), ignore_labels=[])
        for (text,) in texts:
            found = tag(text)
            yield [int(each["entity"][-1]) for each in found], min(each["score"] for each in found)
    elif head == "mask":
        fill = transformers.pipeline("fill-mask", model=str(model), top_k=1)
        for (text,) in texts:
            (found,) = fill(text)
            yield [found["token"]], found["score"]
    else:  # no pipeline answers questions any more
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        loaded = transformers.AutoModelForQuestionAnswering.from_pretrained(model)
        for question, context in texts:
            batch = tokenizer(question, context, return_tensors="pt")
            with torch.no_grad():
                output = loaded(**batch)
            pairs = output.start_logits[0].softmax(0).outer(output.end_logits[0].softmax(0))
            inside = batch["token_type_ids"][0] * (batch["input_ids"][0] != tokenizer.sep_token_id)
            pairs = (pairs * inside.outer(inside)).triu().tril(torch_part.LONGEST_ANSWER - 1)
            yield [*divmod(int(pairs.argmax()), len(pairs))], float(pairs.max())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("BertForTokenClassification", "tokens"),
        ("BertForMaskedLM", "mask"),
        ("BertForQuestionAnswering", "span"),
    ],
)
def test_answers_are_those_of_the_library(npm, tmp_path, name, head):
    """Prevents the unlikeliest answer, one in the question, or another's probability."""
    lines = [
        {"question": "the river and the barrels", "context": line[:50]}
        if head == "span"
        else {"text": line.replace("the", "[MASK]", 1) if head == "mask" else line}
        for line in tiny.LINES[:5]
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = {"num_labels": 3} if head == "tokens" else {}
    model = folder_of(tmp_path / "model", name, **settings)
    words = ["--output_dir", tmp_path / "out", "--examples", tmp_path / "rows.jsonl"]
    assert page(model, *words) == 0
    found = data_in(tmp_path / "out")["examples"]
    expected = [*answers_of_pipelines(model, head, [each["texts"] for each in found])]
    assert [each["key"] for each in found] == [key for key, _ in expected]
    for each, (_, probability) in zip(found, expected, strict=True):
        assert each["probability"] == pytest.approx(probability, rel=1e-4)
    assert len(found) == len(lines)


def test_rows_of_a_file_and_their_answers(npm, tmp_path):
    """Prevents answers to other texts than those that are shown, and a pair read as one."""
    rows = [("the river", "the barrels"), ("a student", "a teacher"), ("rare", "words")]
    lines = ["sentence1,sentence2", *map(",".join, rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    model = folder_of(tmp_path / "model")
    words = ["--output_dir", tmp_path / "out", "--examples", tmp_path / "rows.csv", "--limit", 2]
    assert page(model, *words) == 0
    found = data_in(tmp_path / "out")["examples"]
    classify = transformers.pipeline("text-classification", model=str(model))
    assert [tuple(each["texts"]) for each in found] == rows[:2]
    for each in found:
        text, pair = each["texts"]
        expected = classify({"text": text, "text_pair": pair})
        assert each["key"] == [int(expected["label"][-1])]
        assert each["probability"] == pytest.approx(expected["score"], abs=1e-5)


def test_what_others_put_beside_it_stays(npm, tmp_path, capsys):
    """Prevents a site's own files from going with an older page, and a site taken for a page."""
    model, out = folder_of(tmp_path / "model"), tmp_path / "out"
    assert page(model, "--output_dir", out) == 0
    (out / "CNAME").write_text("example.org")
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")
    assert page(model, "--output_dir", out) == 0
    assert (out / "CNAME").read_text() == "example.org"
    assert (out / ".git" / "HEAD").read_text() == "ref"
    site = tmp_path / "site"
    for name in ("lib", "model"):
        (site / name).mkdir(parents=True)
    (site / "index.html").write_text("mine")
    assert page(model, "--output_dir", site) == 2
    assert "holds something else than a page" in capsys.readouterr().err
    assert (site / "index.html").read_text() == "mine"


def test_a_name_of_any_letters_has_a_folder(npm, tmp_path, monkeypatch):
    """Prevents a folder that begins with a blank, or is a part of the name."""
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "model")
    assert page("model", "--name", "My model / v2 <b>") == 0
    assert (tmp_path / "My-model-v2-b-page" / "index.html").is_file()


def test_the_footer_has_the_whole_command(npm, tmp_path):
    """Prevents a page that can't be made again from what it says."""
    (tmp_path / "rows.csv").write_text("note\nthe river\n")
    words = ["--examples", tmp_path / "rows.csv", "--limit", 1, "--text_columns", "note"]
    assert page(folder_of(tmp_path / "model"), "--output_dir", tmp_path / "out", *words) == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert "page model --examples rows.csv --limit 1 --text_columns note" in text


def test_what_can_not_be_shown_is_said_in_one_line(npm, tmp_path, capsys):
    """Prevents a traceback, or a page that can't work."""
    model, (lines, out) = folder_of(tmp_path / "model"), (tmp_path / "x.txt", tmp_path / "out")
    lines.write_text("the river " * 60)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("question,sentence\na,b\n")
    mask = folder_of(tmp_path / "mask", "BertForMaskedLM")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("")
    bare = tmp_path / "bare"
    tiny.folder(bare, tiny.bert(), tiny.wordpiece())
    capsys.readouterr()
    for words, said in [
        ([tmp_path / "none"], "not a folder"),
        ([bare], "onnx/model_quantized.onnx is missing: python -m distil_trainer export"),
        ([model, "--examples", lines], "x.txt: row 1: 122 tokens, and model reads 64"),
        ([mask, "--examples", pairs], "pairs.csv: row 1: has no [MASK]"),
        ([model, "--limit", 3], "--limit is about --examples FILE, which is not given"),
        ([model, "--port", 3], "--port is about --serve, which is not given"),
        ([model, "--output_dir", full], "holds something else than a page"),
    ]:
        assert page("--output_dir", out, *words[1:], "--model", words[0]) == 2
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1
    assert (full / "mine.txt").exists()
    assert not out.exists()


def test_an_int8_file_of_other_weights(npm, tmp_path, capsys):
    """Prevents a page about a model that was trained on since it was exported."""
    model = folder_of(tmp_path / "model")
    sha256 = hashlib.sha256(b"int8").hexdigest()
    step = {"what": "export", "file": "onnx/model_quantized.onnx", "sha256": sha256}
    record = {"lineage": [{**step, "from": {"sha256": "0" * 64}}]}
    (model / "distil.json").write_text(json.dumps(record))
    assert page(model, "--output_dir", tmp_path / "out") == 2
    assert "was exported from other weights" in capsys.readouterr().err


def test_without_npm(tmp_path, monkeypatch, capsys):
    """Prevents a traceback where Node.js is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert page(folder_of(tmp_path / "model"), "--output_dir", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("npm is not installed") == 1
    assert not (tmp_path / "out").exists()


def test_npm_that_fails_and_another_archive_than_the_pinned(npm, tmp_path, monkeypatch):
    """Prevents code on the page that nobody looked at."""
    (tmp_path / "lib").mkdir()
    others = [replace(each, integrity="sha512-AAAA") for each in libraries.LIBRARIES]
    monkeypatch.setattr(libraries, "LIBRARIES", others)
    (tmp_path / "draft").mkdir()
    with pytest.raises(RunFailed, match="is not what was pinned"):
        libraries.lay_beside(tmp_path / "lib", tmp_path / "draft")
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho npm error code ENOTFOUND >&2\nexit 1\n")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="ENOTFOUND"):
        libraries.lay_beside(tmp_path / "lib", tmp_path / "other")
    assert not list((tmp_path / "lib").iterdir())


def test_entities_are_joined_as_their_labels_say():
    """Prevents two names in a row from becoming one, and one of two tokens from becoming two."""
    labels = ["O", "B-PER", "I-PER", "B-PER", "O", "LOC", "LOC", "I-ORG"]
    found = list(torch_part.entities(range(8), labels))
    assert found == [([1, 2], "PER"), ([3], "PER"), ([5, 6], "LOC"), ([7], "ORG")]


def test_the_server_gives_the_folder_and_nothing_else(tmp_path):
    """Prevents a server that shows other files, other machines, or wrong types."""
    home = tmp_path / "page"
    home.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("index.html", "a.wasm", "a.mjs"):
        (home / name).write_text("content")
    (home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "empty").mkdir()
    server = server_of(home, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match="choose another"):
            server_of(home, server.server_address[1])
        connection = http.client.HTTPConnection(*server.server_address)
        for path, status, kind in [
            ("/", 200, "text/html; charset=utf-8"),
            ("/a.wasm", 200, "application/wasm"),
            ("/a.mjs", 200, "text/javascript"),
            ("/empty/", 404, None),
            ("/link.txt", 404, None),
            ("/../secret.txt", 404, None),
            ("/%2e%2e/secret.txt", 404, None),
        ]:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert b"secret" not in answer.read()
            assert answer.status == status, path
            assert kind in (None, answer.headers["Content-Type"])
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
