"""Timing requests of `speed`: models, by weights or by config alone, and their inputs."""

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
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate
from angels_share.imports import require_extra
from angels_share.model_files import ONNX, ONNX_INT8
from angels_share.names import short_name_of
from eval_harness.data.sources import find_source
from eval_harness.data.stsb_lengths import lengths
from eval_harness.data.texts import Split
from eval_harness.results.speed import Setup
from eval_harness.runs.models import identify
from eval_harness.runs.onnx_files import names_onnx
from eval_harness.runs.run import Model
from eval_harness.tasks.lookup import task_named

TASK = task_named("stsb")
SEED = 1
"""The seed of the drawn pairs and of random ids and weights."""

TORCH, ONNX_BACKEND, ONNX_INT8_BACKEND = "torch", "onnx", "onnx-int8"
BACKENDS = (TORCH, ONNX_BACKEND, ONNX_INT8_BACKEND)
"""What computes a model: torch, or onnxruntime a file of it in float32 or int8."""
_FILES = {ONNX_BACKEND: ONNX, ONNX_INT8_BACKEND: ONNX_INT8}

# Their configs on the Hub are transformers' defaults, so no file is needed.
_DEFAULT_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "bert": {"model_type": "bert"},
    "distilbert": {"model_type": "distilbert"},
}


@dataclass(frozen=True)
class Request:
    """A model to time and its inputs; sent to the process that times it.

    Attributes:
        name: its name in tables.
        key: its identity.
        model: the model with its weights; None for random weights.
        config: the config to build a model with random weights from.
        tokenizer: the tokenizer's name and revision; None for synthetic ids.
        texts: the pairs of texts; None for synthetic ids.
        lengths: lengths of the synthetic pairs in tokens.
        max_seq_length: maximum sequence length of a pair in tokens.
        batch_sizes: pairs per batch.
        device: "cpu" or "cuda".
        bf16: whether weights and activations are in bfloat16.
        backend: what computes it.
        onnx: the ONNX file, which is made first where it has random weights; None for torch.
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
    backend: str = TORCH
    onnx: str | None = None


def requests(options: Options, scratch: Path | None = None) -> tuple[list[Request], Setup]:
    """Resolve all names of a command, so that mistakes show before any work.

    Args:
        options: the command's flags.
        scratch: a folder for ONNX files of random weights, if there are to be any.

    Raises:
        UserError: an unknown name, an unreadable config, or missing data.
    """
    _check(options)
    backends = tuple(dict.fromkeys(options.backend))
    subjects = _distinguish(
        [
            _subject(name, options, backend, scratch)
            for name in options.model
            for backend in backends
        ]
    )
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
    models = [
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
    return models, setup


def _check(options: Options) -> None:
    if options.full and "pairs" in options.given:
        raise UserError(
            "--full is the whole dev set and --pairs a part of it: pass only one of them"
        )
    given = [name for name in ("data_dir", "data_revision") if name in options.given]
    if options.synthetic and given:
        raise UserError(f"--synthetic reads no data: leave out --{given[0]}")
    if options.synthetic and options.pairs > len(lengths(None, SEED)):
        raise UserError(f"--pairs {options.pairs}: STS-B's dev set has {len(lengths(None, SEED))}")
    for name in options.model:
        if names_onnx(name):
            raise UserError(f"--model {name}: give the model's folder, with --backend onnx")
    if {*options.backend} == {TORCH}:
        return
    needed = ["onnxruntime", *(("onnx", "onnxscript") if options.random_weights else ())]
    require_extra(needed, "export", f"--backend {' '.join(options.backend)}")
    if options.device != "cpu":
        raise UserError(f"--device {options.device}: ONNX files are timed on the CPU: drop it")
    if options.bf16:
        raise UserError("--bf16: an ONNX file computes as it was exported: drop the flag")


def _threads(options: Options) -> tuple[int, ...]:
    available = cores()
    default = (1,) if options.device == "cuda" else (1, available)
    threads = tuple(dict.fromkeys(options.threads or default))
    if max(threads) > available:
        raise UserError(f"--threads {max(threads)}: this process may use only {available} cores")
    return threads


def _batch_sizes(options: Options, pairs: int) -> tuple[int, ...]:
    """Return the batch sizes, 1 first; refuse one that a pass has too few pairs for."""
    sizes = tuple(dict.fromkeys((1, *options.batch_sizes)))
    if "batch_sizes" not in options.given:
        return tuple(size for size in sizes if size <= pairs)
    if max(sizes) > pairs:
        raise UserError(f"--batch_sizes {max(sizes)}: a pass has only {pairs} pairs: omit it")
    return sizes


@dataclass(frozen=True)
class _Subject:
    """A model to time and its tokenizer: the part of a `Request` that depends on its name."""

    name: str
    key: str
    model: Model | None
    config: Mapping[str, Any]
    tokenizer: tuple[str, str | None] | None
    backend: str
    onnx: str | None


def _subject(name: str, options: Options, backend: str, scratch: Path | None) -> _Subject:
    """Resolve a name to a model with weights, or to a config for random weights."""
    is_file = name.endswith(".json") and Path(name).expanduser().is_file()
    if not is_file and not options.random_weights:
        model = identify(name) if backend == TORCH else _exported(name, backend)
        tokenizer = None if options.synthetic else (model.home, model.revision)
        file = model.source if model.is_onnx else None
        return _Subject(model.name, model.key, model, {}, tokenizer, backend, file)
    if is_file and not options.synthetic:
        raise UserError(f"{name}: a config has no tokenizer: add --synthetic")
    config = _config_of(name, is_file=is_file)
    row = short_name_of(name)
    label = row.short if row else _label(name)
    suffix, key = "", label
    if backend != TORCH:
        suffix, key = f" ({backend.replace('-', ' ')})", f"{label}-{backend}"
    key = f"{key}-{hash_of(dict(config))}"
    return _Subject(
        name=f"{label}{suffix}",
        key=key,
        model=None,
        config=config,
        tokenizer=None if options.synthetic else _tokenizer_of(name),
        backend=backend,
        onnx=None
        if scratch is None or backend == TORCH
        else str(scratch / hash_of(key) / "m.onnx"),
    )


def _exported(name: str, backend: str) -> Model:
    """Return the model in the ONNX file beside a model's weights.

    Raises:
        UserError: there is none; the error says what makes it.
    """
    located = locate(name)
    folder = model_folder(located, weights=False)
    file = folder / _FILES[backend]
    if not file.is_file():
        int8 = " --quantize int8" if backend == ONNX_INT8_BACKEND else ""
        elsewhere = "" if located.kind == "folder" else " --output_dir DIR, then --model DIR"
        raise UserError(
            f"--backend {backend}: {name} has no {_FILES[backend]}; to make it: "
            f"python -m distil_trainer export {name}{int8}{elsewhere}"
        )
    return identify(str(file))


def _distinguish(subjects: Sequence[_Subject]) -> list[_Subject]:
    """Return each model once, adding hashes to names that several models share."""
    unique = {subject.key: subject for subject in subjects}.values()
    counts = Counter(subject.name for subject in unique)
    return [
        replace(subject, name=f"{subject.name} {subject.key.rpartition('-')[2]}")
        if counts[subject.name] > 1
        else subject
        for subject in unique
    ]


def _label(name: str) -> str:
    """Return a Hub id, or a path's last part; generic names get their folder's name in front."""
    path = Path(name).expanduser()
    if not path.exists():
        return name
    last = path.stem if path.is_file() else path.resolve().name
    return f"{path.resolve().parent.name}/{last}" if last in ("config", *ABLATIONS) else last


def _config_of(name: str, *, is_file: bool) -> Mapping[str, Any]:
    row = short_name_of(name)
    if row and row.short in _DEFAULT_CONFIGS and not Path(name).is_dir():
        return _DEFAULT_CONFIGS[row.short]
    path = Path(name).expanduser() if is_file else _config_file(name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        hash_of(values)  # raises a ValueError for NaN and unpaired surrogates
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f'{path}: is not a config: it has no "model_type", e.g. "distilbert"')
    return values


def _config_file(name: str) -> Path:
    return model_folder(locate(name), weights=False) / "config.json"


def _tokenizer_of(name: str) -> tuple[str, str | None]:
    try:
        located = locate(name)
    except UserError as error:
        raise UserError(f"{error} (--synthetic needs no tokenizer)") from error
    return located.source, located.revision


def _texts(options: Options, count: int | None) -> tuple[Split, str, str]:
    """Return the pairs, their source, and the content hash of the whole dev set."""
    folder = Path(options.data_dir).expanduser() if options.data_dir else None
    (dev,) = TASK.evaluation
    try:
        source = find_source(TASK, folder, TASK.evaluation, options.data_revision)
        files = source.read(dev)
        texts = tuple(
            [text for columns in files for text in columns.texts(name)] for name in TASK.columns
        )
    except UserError as error:
        raise UserError(f"{error} (--synthetic needs no data)") from error
    ids = list(map(str, range(len(texts[0]))))
    name = f"stand-in data: {source.name}" if source.name else source.source
    return _sample(Split(dev, ids, texts, None), count), name, hash_of(texts, 16)


def _sample(split: Split, count: int | None) -> Split:
    """Draw pairs without replacement; return all of them, in the file's order, for None."""
    if count is None or count >= len(split):
        return split
    rows = random.Random(SEED).sample(range(len(split)), count)  # noqa: S311
    return Split(
        split.name,
        [split.ids[row] for row in rows],
        tuple([texts[row] for row in rows] for texts in split.texts),
        None,
    )
