"""Writes the demo world to a folder, in the real data's own file formats. Imports no torch.

A seeded grammar makes a text, a WordPiece vocabulary, a teacher's configuration, nine tasks shaped
like GLUE's, one like IMDb and one like SQuAD. Every example is answerable from the text: which verb
agrees, which words mean the same, what is a kind of what, what lies where, who `she` is. Nothing is
drawn but from `random.Random(f"{seed}/{part}")`, so the same seed writes the same bytes anywhere.

The seed was fixed beforehand, the sizes were tuned: with twice as many names and things, or with
two heads instead of four, a BERT of 4 x 64 learned the grammar in as many steps, and not to look
back at what was said. Pairs differ in one thing only: which deed, or what kind of thing. In some
thousand short pairs models of this size find one such thing, and not one of several.
"""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import hash_of, write_atomically
from eval_harness.demo import files
from eval_harness.demo.corpus import lines
from eval_harness.demo.examples import Example, Paragraph, examples, paragraphs
from eval_harness.demo.grammar import World
from eval_harness.demo.words import vocabulary

RECORD = "world.json"
LINES = 40_000
TRAIN = {
    "cola": 4000, "mnli": 5000, "mrpc": 2500, "qnli": 5000, "qqp": 5000, "rte": 4000,
    "sst2": 3000, "stsb": 4000, "wnli": 4000, "imdb": 1600,
}  # fmt: skip
HELD_OUT = 300
PARAGRAPHS = {"train": 1100, "dev": 120}
LONGEST = 96

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MARKS = (".", ",", "?", "<", ">", "/", '"')


def world_files(seed: int) -> Iterator[tuple[str, str]]:
    """Every file of the world by its path in the folder, one after the other."""
    world = World.made(_draw(seed, "world"))
    cola = _parts("cola", world, seed, _sizes("cola"))
    unseen = {row.texts[0] for split in ("dev", "test") for row in cola[split]}
    yield "corpus.txt", "\n".join(lines(world, _draw(seed, "corpus"), LINES, unseen)) + "\n"
    yield from _teacher()
    for task in files.FOLDERS:
        yield from _glue(task, world, seed)
    yield from _imdb(world, seed)
    yield from _squad(seed)
    for folder in ("glue", "squad"):
        yield f"{folder}/about.json", files.about(seed)


def _draw(seed: int, part: str) -> random.Random:
    return random.Random(f"{seed}/{part}")  # noqa: S311


def _teacher() -> Iterator[tuple[str, str]]:
    """What a teacher would be: a configuration and a tokenizer, no weights."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*_SPECIAL, *_MARKS, *letters, *(f"##{letter}" for letter in letters), *vocabulary()]
    words = list(dict.fromkeys(words))
    config = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": len(words),
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "initializer_range": 0.08,
        "intermediate_size": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": LONGEST,
    }
    names = {f"{name[1:-1].lower()}_token": name for name in _SPECIAL}
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": LONGEST,
        **names,
    }
    yield "teacher/config.json", _json(config)
    yield "teacher/tokenizer_config.json", _json(tokenizer)
    yield "teacher/vocab.txt", "\n".join(words) + "\n"


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _parts(
    task: str, world: World, seed: int, sizes: Mapping[str, int]
) -> dict[str, list[Example]]:
    """Splits of one task; no text stands in two of them."""
    rows = iter(examples(task, world, _draw(seed, task), sum(sizes.values())))
    return {split: list(islice(rows, size)) for split, size in sizes.items()}


def _sizes(task: str) -> dict[str, int]:
    kinds = ("_matched", "_mismatched") if task == "mnli" else ("",)
    held_out = {f"{split}{kind}": HELD_OUT for split in ("dev", "test") for kind in kinds}
    return {"train": TRAIN[task], **held_out}


def _glue(task: str, world: World, seed: int) -> Iterator[tuple[str, str]]:
    for split, rows in _parts(task, world, seed, _sizes(task)).items():
        yield f"glue/{files.FOLDERS[task]}/{split}.tsv", files.tsv(task, split, rows)


def _imdb(world: World, seed: int) -> Iterator[tuple[str, str]]:
    parts = _parts("imdb", world, seed, {"train": TRAIN["imdb"], "test": HELD_OUT})
    for split, rows in parts.items():
        yield f"glue/imdb/{split}.jsonl", files.jsonl(sorted(rows, key=lambda row: row.label))


def _squad(seed: int) -> Iterator[tuple[str, str]]:
    made: dict[str, Paragraph] = {}
    for part in paragraphs(_draw(seed, "squad")):
        made.setdefault(part.context, part)
        if len(made) == sum(PARAGRAPHS.values()):
            break
    rows = iter(made.values())
    for split, size in PARAGRAPHS.items():
        yield f"squad/{split}-v1.1.json", files.squad(islice(rows, size))


def write_world(folder: Path, seed: int) -> bool:
    """Writes the world; False if just this one is there already.

    Its record comes last: a folder without one holds no world, whole or not.

    Raises:
        UserError: the folder holds something else, or another world, or a part of this one.
    """
    made = dict(world_files(seed))
    hashes = {name: hash_of(text, 16) for name, text in made.items()}
    made[RECORD] = _json({"seed": seed, "files": hashes})
    draft = folder / ".world-draft"
    if folder.exists() and any(path != draft for path in folder.iterdir()):
        _require_same(folder, made)
        return False
    shutil.rmtree(draft, ignore_errors=True)  # what a killed writing left behind
    try:
        for name, text in made.items():
            write_atomically(draft / name, text)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == RECORD):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _require_same(folder: Path, made: Mapping[str, str]) -> None:
    """Refuses whatever isn't this very world to the last byte: models would be made of another."""
    record = folder / RECORD
    if not record.is_file() or b'"files"' not in record.read_bytes():
        raise UserError(f"{folder} holds something else: name a folder that is new")
    for name in (RECORD, *made):
        path = folder / name
        if path.is_file() and path.read_bytes() == made[name].encode():
            continue
        if name == RECORD:
            what = "another demo world, of another seed or another version"
        else:
            what = f"a demo world whose {name} is missing or was altered"
        raise UserError(f"{folder} holds {what}: name a folder that is new, or remove it")
