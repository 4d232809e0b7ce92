"""What `speed` is asked for: which models, of weights or of a config alone, and what they read."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angels_share.ablations import ABLATIONS
from angels_share.errors import UserError
from angels_share.files import explain, hash_of
from angels_share.flags import Options
from angels_share.hardware import cores
from angels_share.names import known_as, locate
from eval_harness.data.sources import find_source
from eval_harness.data.stsb_lengths import lengths
from eval_harness.data.texts import Split
from eval_harness.results.speed import Setup
from eval_harness.runs.models import identify
from eval_harness.runs.run import Model
from eval_harness.tasks.lookup import task_named

TASK = task_named("stsb")
SEED = 1
"""Of the pairs, and of the ids and weights that are random."""

# Their configs on the Hub are transformers' defaults.
_BY_DEFAULT: Mapping[str, Mapping[str, Any]] = {
    "bert": {"model_type": "bert"},
    "distilbert": {"model_type": "distilbert"},
}


@dataclass(frozen=True)
class Request:
    """A model to time, and what it reads: all that its process must know.

    Attributes:
        name: what it is called in tables.
        key: which model it is.
        model: where its weights are; None where they are random.
        config: what it is then made of.
        tokenizer: the name and the revision of one; None where ids are synthetic.
        texts: what it reads; None where ids are synthetic.
        lengths: tokens of each synthetic pair.
        max_seq_length: tokens that are read of a pair.
        batch_sizes: pairs at once.
        device: "cpu" or "cuda".
        bf16: whether weights and products are in bfloat16.
    """

    name: str
    key: str
    model: Model | None
    config: Mapping[str, Any]
    tokenizer: tuple[str, str | None] | None
    texts: Split | None
    lengths: Sequence[int]
    max_seq_length: int
    batch_sizes: tuple[int, ...]
    device: str
    bf16: bool


def requests(options: Options) -> tuple[list[Request], Setup]:
    """Looks up all that a command names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, a config that can't be read, data that isn't there.
    """
    _check(options)
    subjects = _told_apart([_subject(name, options) for name in options.model])
    count = None if options.full else options.pairs
    texts, source, content = (None, None, None) if options.synthetic else _texts(options, count)
    tokens = [] if texts else [min(n, options.max_seq_length) for n in lengths(count, SEED)]
    setup = Setup(
        source=source,
        content=content,
        pairs=(pairs := len(texts or tokens)),
        full=options.full,
        repeats=options.repeats,
        seed=SEED,
        max_seq_length=options.max_seq_length,
        threads=_threads(options),
        batch_sizes=_batch_sizes(options, pairs),
        dtype="bfloat16" if options.bf16 else "float32",
    )
    made = [
        Request(
            **subject.__dict__,
            texts=texts,
            lengths=tokens,
            max_seq_length=options.max_seq_length,
            batch_sizes=setup.batch_sizes,
            device=options.device,
            bf16=options.bf16,
        )
        for subject in subjects
    ]
    return made, setup


def _check(options: Options) -> None:
    if options.full and "pairs" in options.given:
        raise UserError("--full is the whole dev set and --pairs a part of it: give one of them")
    given = [name for name in ("data_dir", "data_revision") if name in options.given]
    if options.synthetic and given:
        raise UserError(f"--synthetic reads no data: leave out --{given[0]}")
    if options.synthetic and options.pairs > len(lengths(None, SEED)):
        raise UserError(f"--pairs {options.pairs}: STS-B's dev set has {len(lengths(None, SEED))}")


def _threads(options: Options) -> tuple[int, ...]:
    there = cores()
    default = (1,) if options.device == "cuda" else (1, there)
    wanted = tuple(dict.fromkeys(options.threads or default))
    if max(wanted) > there:
        raise UserError(f"--threads {max(wanted)}: this process may use {there} cores")
    return wanted


def _batch_sizes(options: Options, pairs: int) -> tuple[int, ...]:
    """A batch of so many must be there, or its throughput would be a smaller one's."""
    sizes = tuple(dict.fromkeys((1, *options.batch_sizes)))
    if "batch_sizes" not in options.given:
        return tuple(size for size in sizes if size <= pairs)
    if max(sizes) > pairs:
        raise UserError(f"--batch_sizes {max(sizes)}: a pass has only {pairs} pairs: leave it out")
    return sizes


@dataclass(frozen=True)
class _Subject:
    """Which model, and with what it reads."""

    name: str
    key: str
    model: Model | None
    config: Mapping[str, Any]
    tokenizer: tuple[str, str | None] | None


def _subject(name: str, options: Options) -> _Subject:
    """A model by its weights, or by a config alone."""
    is_file = name.endswith(".json") and Path(name).expanduser().is_file()
    if not is_file and not options.random_weights:
        model = identify(name)
        read_with = None if options.synthetic else (model.source, model.revision)
        return _Subject(model.name, model.key, model, {}, read_with)
    if is_file and not options.synthetic:
        raise UserError(f"{name}: a config has no tokenizer: add --synthetic")
    config = _config_of(name, is_file=is_file)
    row = known_as(name)
    shown = row.short if row else _shown(name)
    return _Subject(
        name=shown,
        key=f"{shown}-{hash_of(dict(config))}",
        model=None,
        config=config,
        tokenizer=None if options.synthetic else _tokenizer_of(name),
    )


def _told_apart(subjects: Sequence[_Subject]) -> list[_Subject]:
    """Each model once, however often it was spelt, under a name that no other one has."""
    unique = {subject.key: subject for subject in subjects}.values()
    counts = Counter(subject.name for subject in unique)
    return [
        replace(each, name=f"{each.name} {each.key.rpartition('-')[2]}")
        if counts[each.name] > 1
        else each
        for each in unique
    ]


def _shown(name: str) -> str:
    """A file's or a folder's own name, or a Hub id; one that says little has its folder's too."""
    path = Path(name).expanduser()
    if not path.exists():
        return name
    own = path.stem if path.is_file() else path.resolve().name
    return f"{path.resolve().parent.name}/{own}" if own in ("config", *ABLATIONS) else own


def _config_of(name: str, *, is_file: bool) -> Mapping[str, Any]:
    row = known_as(name)
    if row and row.short in _BY_DEFAULT and not Path(name).is_dir():
        return _BY_DEFAULT[row.short]
    path = Path(name).expanduser() if is_file else _config_file(name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        hash_of(values)  # which NaN and half a character have not
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f'{path}: is no config: it has no "model_type", e.g. "distilbert"')
    return values


def _config_file(name: str) -> Path:
    located = locate(name)
    if located.kind == "folder":
        return Path(located.source) / "config.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(located.source, "config.json", revision=located.revision))


def _tokenizer_of(name: str) -> tuple[str, str | None]:
    try:
        located = locate(name)
    except UserError as error:
        raise UserError(f"{error} (--synthetic needs no tokenizer)") from error
    return located.source, located.revision


def _texts(options: Options, count: int | None) -> tuple[Split, str, str]:
    """The pairs to read, where they are from, and the hash of all that the dev set says."""
    folder = Path(options.data_dir).expanduser() if options.data_dir else None
    (dev,) = TASK.evaluation
    try:
        origin = find_source(TASK, folder, TASK.evaluation, options.data_revision)
        files = origin.read(dev)
        texts = tuple(
            [text for columns in files for text in columns.texts(name)] for name in TASK.columns
        )
    except UserError as error:
        raise UserError(f"{error} (--synthetic needs no data)") from error
    ids = list(map(str, range(len(texts[0]))))
    source = f"stand-in data: {origin.name}" if origin.name else origin.source
    return _drawn(Split(dev, ids, texts, None), count), source, hash_of(texts, 16)


def _drawn(split: Split, count: int | None) -> Split:
    """So many pairs, drawn without putting back; all of them, in the file's order, for None."""
    if count is None or count >= len(split):
        return split
    chosen = random.Random(SEED).sample(range(len(split)), count)  # noqa: S311
    return Split(
        split.name,
        [split.ids[i] for i in chosen],
        tuple([texts[i] for i in chosen] for texts in split.texts),
        None,
    )
