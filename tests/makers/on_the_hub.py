"""Tiny models and tasks as the Hub has them, put on a test's own Hub."""

import io
import json

import pyarrow as pa
import pyarrow.parquet
import tiny
import worlds
from tasks_on_disk import as_parquet, split_names

from eval_harness.tasks.lookup import tasks_named

DISTILBERT = "distilbert/distilbert-base-uncased"
BERT = "google-bert/bert-base-uncased"


def model_files(folder, model=None, tokenizer=None):
    """Return the files of a tiny model, as a repository on the Hub has them: pickles, too."""
    tiny.folder(folder, model or tiny.distilbert(), tokenizer or tiny.wordpiece())
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    readme = b"---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n"
    return {
        **files,
        "README.md": readme,
        "pytorch_model.bin": b"a pickle that nobody wants",
        "tf_model.h5": b"another framework's weights",
        "onnx/model.onnx": b"an export",
        "onnx/config.json": b"{}",
    }


def data_files(folder, *names):
    """Return the files of tasks of one data set, as the Hub's repository has them."""
    files = {"README.md": b"---\nlicense: other\n---\n# Data\n"}
    for task in tasks_named(names):
        as_parquet(folder, task)
        for split in split_names(task):
            path = folder / task.name / f"{split}.parquet"
            name = f"{task.config}/{split}-00000-of-00001.parquet"
            files[name] = path.read_bytes()
    return files


def add_distilbert_and_glue(hub, folder, *names):
    """Put DistilBERT, under its short name's id, and some of GLUE's tasks on a Hub."""
    model = hub.add(
        DISTILBERT, model_files(folder / "m"), renamed_from=("distilbert-base-uncased",)
    )
    data = hub.add("nyu-mll/glue", data_files(folder / "d", *names), what="dataset",
                   renamed_from=("glue",))  # fmt: skip
    return model, data


def squad_files(folder):
    """Return a tiny SQuAD as the Hub's repository has it."""
    worlds.squad_files(folder, train=24, dev=8)
    files = {}
    for split, name in (("train", "train"), ("validation", "dev")):
        (article,) = json.loads((folder / f"{name}.json").read_text())["data"]
        rows = [
            {
                "id": question["id"],
                "title": "t",
                "context": paragraph["context"],
                "question": question["question"],
                "answers": {
                    "text": [answer["text"] for answer in question["answers"]],
                    "answer_start": [answer["answer_start"] for answer in question["answers"]],
                },
            }
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
        files[f"plain_text/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


def everything(hub, folder):
    """Put all on a Hub that the three commands take by name: models, tasks, SQuAD and a corpus."""
    hub.add(DISTILBERT, model_files(folder / "m", tiny.distilbert(1), tiny.wordpiece(worlds.WORDS)))
    hub.add(BERT, model_files(folder / "b", tiny.bert(2), tiny.wordpiece(worlds.WORDS)))
    hub.add("nyu-mll/glue", data_files(folder / "d", "rte", "cola"), what="dataset")
    hub.add("rajpurkar/squad", squad_files(folder / "s"), what="dataset")
    texts = [{"text": " ".join(worlds.WORDS)} for _ in range(200)]
    lines = "\n".join(map(json.dumps, texts)).encode()
    hub.add("someone/wiki", {"train.jsonl": lines}, what="dataset")
