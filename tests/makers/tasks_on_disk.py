"""Task data on disk: the same made-up rows in every supported format."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet

# Unbalanced quotes, non-ASCII letters, trailing blanks, a Unicode line separator.
TEXTS = ('He said " no', "größer 'als", "two  blanks ", "a\u2028b", '"', "3 , 4", "日本", "x")
SIZES = {"train": 8, "test": 3, "test_matched": 2, "test_mismatched": 3}


def split_names(task):
    return ("train", *task.evaluation, *task.test)


def rows_of(task, split):
    """Yield made-up rows with the Hub's columns; a regression's labels have two decimals."""
    count = SIZES.get(split, 4)
    for number in range(count):
        texts = [TEXTS[(number + place) % 8] + f" {split}" for place in range(len(task.columns))]
        label = number * 0.55 if task.is_regression else task.labels[number % len(task.labels)]
        yield {**dict(zip(task.columns, texts, strict=True)), "label": label, "idx": number}


def as_glue(folder, task, line_end="\n", mark=b""):
    """Write a task in GLUE's own format, with the columns of each of its files."""
    pair = ["sentence1", "sentence2"]
    columns = {
        "cola": ["source", "label", "mark", "sentence"],
        "mnli": ["index", "pairID", "genre", "parse1", "parse2", *pair, "label1", "gold_label"],
        "mrpc": ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        "qnli": ["index", "question", "sentence", "label"],
        "qqp": ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        "rte": ["index", *pair, "label"],
        "sst2": ["sentence", "label"],
        "stsb": ["index", "genre", "filename", "year", "old_index", "source1", *pair, "score"],
        "wnli": ["index", *pair, "label"],
    }[task.name]  # fmt: skip
    labels = {"label", "gold_label", "Quality", "is_duplicate", "score"}
    texts = {"premise": "sentence1", "hypothesis": "sentence2"}
    if task.name == "mrpc":
        texts = {"sentence1": "#1 String", "sentence2": "#2 String"}
    for split in split_names(task):
        names = columns
        if split in task.test:
            names = ["index", *(name for name in columns if name not in {*labels, "index", "id"})]
        lines = [] if task.name == "cola" and split not in task.test else ["\t".join(names)]
        for row in rows_of(task, split):
            label = f"{row['label']:.3f}" if task.is_regression else row["label"]
            if task.name not in ("mnli", "qnli", "rte", "stsb"):
                label = str(task.labels.index(label))
            given = {texts.get(name, name): row[name] for name in task.columns}
            given |= {"index": row["idx"], "id": row["idx"]} | dict.fromkeys(labels, label)
            lines.append("\t".join(str(given.get(name, "-")) for name in names))
        path = folder / task.glue.folder / f"{split.replace('validation', 'dev')}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mark + line_end.join([*lines, ""]).encode())
    return folder


def as_parquet(folder, task, names=None):
    """Write a task like the Hub's: float32 numbers, class ids with names, -1 for no label."""
    names = names or task.labels
    for split in split_names(task):
        rows = list(rows_of(task, split))
        table = {name: [row[name] for row in rows] for name in (*task.columns, "idx")}
        if split in task.test:
            labels = pa.array([-1] * len(rows), pa.int64())
        elif task.is_regression:
            labels = pa.array([row["label"] for row in rows], pa.float32())
        else:
            labels = pa.array([names.index(row["label"]) for row in rows], pa.int64())
        feature = {"_type": "Value"} if task.is_regression else {"names": list(names)}
        note = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
        path = folder / task.name / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(
            pa.table({**table, "label": labels}).replace_schema_metadata(note), path
        )
    return folder


def as_csv(folder, task):
    for split in split_names(task):
        path = folder / task.name / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["idx", "label", *task.columns])
            writer.writeheader()
            writer.writerows(rows_of(task, split))
    return folder


def as_jsonl(folder, task):
    for split in split_names(task):
        path = folder / ("glue" if task.glue else "") / task.name / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task, split)))
    return folder


def as_json(folder, task):
    for split in split_names(task):
        path = folder / task.name / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(list(rows_of(task, split)), indent=1, ensure_ascii=False))
    return folder


def as_windows(folder, task):
    return as_glue(folder, task, line_end="\r\n", mark=b"\xef\xbb\xbf")


def expected(task, split):
    rows = list(rows_of(task, split))
    texts = tuple([row[name] for row in rows] for name in task.columns)
    if split in task.test:
        return texts, None
    if task.is_regression:
        return texts, [float(f"{row['label']:.3f}") for row in rows]
    return texts, [task.labels.index(row["label"]) for row in rows]
