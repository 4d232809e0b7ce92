"""Write the demo world to a folder, in the real data's file formats. Imports no torch.

A seeded grammar generates a corpus, a WordPiece vocabulary, a teacher's configuration, nine tasks
shaped like GLUE's, one like IMDb and one like SQuAD. The text holds what every example needs: which
verb agrees, which words are synonyms, which things are of one kind, which town lies in which
region, whom `she` means. All randomness comes from `random.Random(f"{seed}/{part}")`, so a seed
writes the same bytes on every machine.

The sizes were chosen on other seeds than the demo's, by looking at the teacher alone. With twice as
many names and things, or with two attention heads instead of four, a BERT of 4 x 64 learned the
grammar in as many steps, but not to look back in the text. The texts of a pair differ in one
respect only, the action or the kind of thing. The demo fine-tunes on few examples, so that what
pre-training taught decides: thousands at a high rate wash it out.
"""

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import hash_of, write_atomically
from eval_harness.demo import files
from eval_harness.demo.corpus import lines
from eval_harness.demo.examples import Example, Paragraph, examples, paragraphs
from eval_harness.demo.grammar import World
from eval_harness.demo.pairs import PHENOMENA, draw_pairs, jsonl
from eval_harness.demo.words import vocabulary

RECORD = "world.json"
LINES = 40_000
TRAIN = 300
"""Examples of a task: so few that what pre-training taught decides."""
HELD_OUT = 300
PAIRS = 1000
HELD_OUT_LINES = 400
PARAGRAPHS = {"train": 200, "dev": 150}
LONGEST = 384

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MARKS = (".", ",", "?", "<", ">", "/", '"')


def world_files(seed: int) -> Iterator[tuple[str, str]]:
    """Yield the path and text of every file of the world."""
    world = World.create(_rng(seed, "world"))
    # Else a model could know CoLA's correct sentences by heart.
    cola = _splits("cola", world, seed, _sizes("cola"))
    unseen = {row.texts[0] for split in ("dev", "test") for row in cola[split]}
    pairs = {name: draw_pairs(name, _rng(seed, f"pairs/{name}"), PAIRS) for name in PHENOMENA}
    unseen |= {
        f"{pair.good.removesuffix('.').partition('. ')[0]}."
        for each in pairs.values()
        for pair in each
    }
    corpus = lines(world, _rng(seed, "corpus"), LINES, unseen)
    yield "corpus.txt", _text(corpus)
    yield "held-out.txt", _text(_held_out(world, seed, corpus))
    for name, each in pairs.items():
        yield f"pairs/{name}.jsonl", jsonl(name, each)
    yield from _teacher()
    for task in files.FOLDERS:
        yield from _glue(task, world, seed)
    yield from _imdb(world, seed)
    yield from _squad(seed)
    for folder in ("glue", "squad"):
        yield f"{folder}/about.json", files.about(seed)


def _rng(seed: int, part: str) -> random.Random:
    return random.Random(f"{seed}/{part}")  # noqa: S311


def _text(written: Iterable[str]) -> str:
    return "\n".join(written) + "\n"


def _held_out(world: World, seed: int, corpus: Iterable[str]) -> list[str]:
    """Return paragraphs like the corpus's, none of which is in it."""
    known = set(corpus)
    drawn = lines(world, _rng(seed, "held-out"), 10 * HELD_OUT_LINES, set())
    return list(
        islice((line for line in dict.fromkeys(drawn) if line not in known), HELD_OUT_LINES)
    )


def _teacher() -> Iterator[tuple[str, str]]:
    """Yield the files of a teacher without weights, and the configuration of a student."""
    # Single letters, so that a word which is not in the table has pieces and is not [UNK].
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
    student = {
        "model_type": "distilbert",
        "architectures": ["DistilBertForMaskedLM"],
        "vocab_size": len(words),
        "dim": config["hidden_size"],
        "n_layers": 2,
        "n_heads": config["num_attention_heads"],
        "hidden_dim": config["intermediate_size"],
        "initializer_range": config["initializer_range"],
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "max_position_embeddings": LONGEST,
    }
    yield "teacher/config.json", _json(config)
    yield "student/config.json", _json(student)
    yield "teacher/tokenizer_config.json", _json(tokenizer)
    yield "teacher/vocab.txt", "\n".join(words) + "\n"


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _splits(
    task: str, world: World, seed: int, sizes: Mapping[str, int]
) -> dict[str, list[Example]]:
    """Return the splits of a task; no text is in two of them."""
    rows = iter(examples(task, world, _rng(seed, task), sum(sizes.values())))
    return {split: list(islice(rows, size)) for split, size in sizes.items()}


def _sizes(task: str) -> dict[str, int]:
    kinds = ("_matched", "_mismatched") if task == "mnli" else ("",)
    held_out = {f"{split}{kind}": HELD_OUT for split in ("dev", "test") for kind in kinds}
    return {"train": TRAIN, **held_out}


def _glue(task: str, world: World, seed: int) -> Iterator[tuple[str, str]]:
    for split, rows in _splits(task, world, seed, _sizes(task)).items():
        yield f"glue/{files.FOLDERS[task]}/{split}.tsv", files.tsv(task, split, rows)


def _imdb(world: World, seed: int) -> Iterator[tuple[str, str]]:
    splits = _splits("imdb", world, seed, {"train": TRAIN, "test": HELD_OUT})
    for split, rows in splits.items():
        yield f"glue/imdb/{split}.jsonl", files.jsonl(sorted(rows, key=lambda row: row.label))


def _squad(seed: int) -> Iterator[tuple[str, str]]:
    distinct: dict[str, Paragraph] = {}
    for paragraph in paragraphs(_rng(seed, "squad")):
        distinct.setdefault(paragraph.context, paragraph)
        if len(distinct) == sum(PARAGRAPHS.values()):
            break
    rows = iter(distinct.values())
    for split, size in PARAGRAPHS.items():
        yield f"squad/{split}-v1.1.json", files.squad(islice(rows, size))


def write_world(folder: Path, seed: int) -> bool:
    """Write the world; return False if the folder already holds exactly this one.

    The record is written last, so a folder with a record was written completely.

    Raises:
        UserError: the folder holds something else, another world, or a changed copy of this one.
    """
    texts = dict(world_files(seed))
    hashes = {name: hash_of(text, 16) for name, text in texts.items()}
    texts[RECORD] = _json({"seed": seed, "files": hashes})
    draft = folder / ".world-draft"
    if folder.exists() and any(path != draft for path in folder.iterdir()):
        _require_same(folder, texts)
        return False
    shutil.rmtree(draft, ignore_errors=True)  # left behind by a process that was killed
    try:
        for name, text in texts.items():
            write_atomically(draft / name, text)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == RECORD):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _require_same(folder: Path, texts: Mapping[str, str]) -> None:
    """Refuse a folder that differs in any byte: models of two worlds can't be compared."""
    record = folder / RECORD
    if not record.is_file() or b'"files"' not in record.read_bytes():
        raise UserError(f"{folder} holds something else: name a new folder")
    for name in (RECORD, *texts):
        path = folder / name
        if path.is_file() and path.read_bytes() == texts[name].encode():
            continue
        if name == RECORD:
            content = "another demo world, of another seed or version"
        else:
            content = f"a demo world whose {name} is missing or was changed"
        raise UserError(f"{folder} holds {content}: name a new folder, or remove this one")
