"""The page for real: npm's packages, Chromium through `--serve`, and Node beside it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import browsers
import pytest
import tiny
import torch
import transformers
from places import ROOT

from eval_harness.page.libraries import LIBRARIES

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
pytestmark = pytest.mark.slow

NPM, NODE = shutil.which("npm"), shutil.which("node")
WORDS = " ".join(tiny.LINES).replace("'", " ").split()
SENTENCES = [" ".join(WORDS[start * 3 : start * 3 + 4 + start % 5]) for start in range(20)]
EXPECTED = {
    "/",
    "/lib/transformers.web.min.js",
    "/lib/ort.wasm.min.mjs",
    "/lib/ort-wasm-simd-threaded.mjs",
    "/lib/ort-wasm-simd-threaded.wasm",
    "/model/config.json",
    "/model/tokenizer.json",
    "/model/tokenizer_config.json",
    "/model/onnx/model_quantized.onnx",
}
SURE = 0.8
"""The probability above which int8 and torch have to agree."""
IN_NODE = """
import { readFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";
env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const classify = await pipeline("text-classification", process.argv[3], { dtype: "q8" });
const texts = JSON.parse(readFileSync(0, "utf-8"));
const found = [];
for (const text of texts) found.push((await classify(text))[0]);
console.log(JSON.stringify(found));
"""


def ours(*words, **settings):
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
        check=True,
        **settings,
    )


@pytest.fixture(scope="module")
def registry():
    """Skips without npm, or without a registry that it can reach."""
    if NPM is None:
        pytest.skip("npm is not installed")
    asked = subprocess.run(
        [NPM, "view", LIBRARIES[0].spec, "version", "--fetch-retries=0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if asked.returncode:
        pytest.skip("npm reaches no registry")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns a maker of tiny exported models: by the class of the head, with 20 texts each."""

    def make(name, lines, **config):
        world = tmp_path_factory.mktemp(name)
        model = tiny.bert(model_class=getattr(transformers, name), **config)
        tokenizer = tiny.wordpiece()
        batch = batch_to_learn(name, lines, tokenizer)
        tiny.folder(world / "model", tiny.taught(model, batch), tokenizer)
        ours("distil_trainer", "export", world / "model", "--quantize", "int8")
        (world / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return world

    return make


def batch_to_learn(name, lines, tokenizer):
    """Return texts with answers that differ from text to text."""
    texts = [list(column) for column in zip(*(line.values() for line in lines), strict=True)]
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    ids, rows = batch["input_ids"], torch.arange(len(lines))
    if name == "BertForSequenceClassification":
        return {**batch, "labels": rows % 2}
    if name == "BertForTokenClassification":
        return {**batch, "labels": (ids % 3).masked_fill(batch["attention_mask"] == 0, -100)}
    if name == "BertForMaskedLM":
        hidden = ids == tokenizer.mask_token_id
        return {**batch, "labels": torch.where(hidden, ids[:, 1:2], -100)}
    first = (batch["token_type_ids"] == 1).int().argmax(dim=1) + rows % 5
    return {**batch, "start_positions": first, "end_positions": first + rows % 3}


def answers_in_chromium(world, opened=browsers.page_after_its_scripts):
    """Serve a page in a process of its own; return what Chromium shows, and what was asked for."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "eval_harness", "page", str(world / "model"), "--serve"),
            *("--port", "0", "--output_dir", str(world / "page")),
            *("--examples", str(world / "texts.jsonl")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = [server.stdout.readline() for _ in range(2)]
        assert lines[1].startswith("http://127.0.0.1:"), (lines, server.stderr.read())
        shown = opened(lines[1].split()[0], world / "profile")
    finally:
        server.send_signal(signal.SIGINT)
        _, log = server.communicate(timeout=30)
    assert server.returncode == 0, log
    return shown, [line.split() for line in log.splitlines() if line.startswith('"GET')]


HEADS = {
    "BertForSequenceClassification": ([{"text": text} for text in SENTENCES], {}),
    "BertForMaskedLM": (
        [{"text": f"{text} [MASK] {text}"} for text in SENTENCES],
        {},
    ),
    "BertForTokenClassification": ([{"text": text} for text in SENTENCES], {"num_labels": 3}),
    "BertForQuestionAnswering": (
        [{"question": text, "context": tiny.LINES[0]} for text in SENTENCES],
        {},
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_chromium_answers_as_torch_does(registry, exported, name):
    """Prevents a page that stays empty, asks another machine for something, or answers otherwise.

    Answers of which torch is sure must be the same: int8 may break a tie otherwise.
    """
    if browsers.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    lines, config = HEADS[name]
    world = exported(name, lines, **config)
    shown, asked = answers_in_chromium(world)
    assert shown.body.get("data-done") == "yes", shown.texts
    assert int(shown.body["data-count"]) == len(shown.rows) == len(lines)
    text = (world / "page" / "index.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    equal, sure = 0, []
    for row, example in zip(shown.rows, data["examples"], strict=True):
        equal += json.loads(row["data-key"]) == example["key"]
        if example["probability"] > SURE:
            sure.append(example["key"])
            assert json.loads(row["data-key"]) == example["key"]
            found = float(row["data-probability"])
            assert found == pytest.approx(example["probability"], abs=0.2)
    assert shown.body["data-same"] == str(equal)
    assert len(sure) >= len(lines) / 2
    assert len(set(map(tuple, sure))) > 1
    assert {words[1] for words in asked} == EXPECTED
    assert {words[3] for words in asked} == {"200"}


def test_opened_as_a_file_it_says_what_to_do(registry, exported):
    """Prevents a page that waits forever where a browser doesn't let it load the model."""
    world = exported("BertForSequenceClassification", *([{"text": "the river"}],))
    ours("eval_harness", "page", world / "model", "--output_dir", world / "page")
    shown = browsers.page_after_its_scripts(
        (world / "page" / "index.html").as_uri(), world / "profile"
    )
    assert "Opened as a file" in shown.texts["status"]
    assert "python -m http.server" in shown.texts["status"]


def test_node_answers_as_torch_does(registry, exported, tmp_path):
    """Prevents files that only our own page can read: Node's runtime is another."""
    if NODE is None:
        pytest.skip("Node.js is not installed")
    world = exported("BertForSequenceClassification", [{"text": text} for text in SENTENCES])
    installed = subprocess.run(
        [NPM, "install", "--ignore-scripts", "--no-save", LIBRARIES[0].spec],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm can't install the library: {installed.stderr[-200:]}")
    (tmp_path / "run.mjs").write_text(IN_NODE)
    ended = subprocess.run(
        [NODE, "run.mjs", str(world), "model"],
        cwd=tmp_path,
        input=json.dumps(SENTENCES),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    classify = transformers.pipeline("text-classification", model=str(world / "model"))
    sure = [
        (answer, expected)
        for answer, expected in zip(found, classify(SENTENCES), strict=True)
        if expected["score"] > SURE
    ]
    assert len(sure) >= len(SENTENCES) / 2
    assert len({expected["label"] for _, expected in sure}) == 2
    for answer, expected in sure:
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], rel=0.1)
