"""Reads a saved model's folder into the facts of its card. Imports no torch.

Records come from anybody, and were written for the machine that they lie on: each field is taken
only in the form that it must have, and a path never.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from angels_share.card.facts import (
    CardCorpus,
    CardFacts,
    CardMeasured,
    CardPretraining,
    CardShape,
    CardStep,
    CardTeacher,
)
from angels_share.card.text import name_of, plain
from angels_share.errors import UserError
from angels_share.model_files import weights_in
from angels_share.names import REPO_ID
from angels_share.readers.text_files import read_json
from angels_share.student_record import LINEAGE, RECORD

_HASH = re.compile(r"[0-9a-f]{7,64}")
_WORD = re.compile(r"\w{1,60}")
_NAME = re.compile(r"[\w-]{1,60}")  # "fine-tune", "stsb"
_STAGE = re.compile(r"[\w ]{1,60}")  # "training from step 2000 on"
_FILE = re.compile(r"(onnx/)?[\w.-]{1,80}")
_SETTING = re.compile(r"[\w.+=, -]{1,100}")
_VERSION = re.compile(r"\d[\w.+-]{0,40}")
_DEVICE = re.compile(r"[\w][\w .:()-]{0,60}")
_PROCESSOR = re.compile(r"[\w][\w .:()@,+-]{0,100}")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|multilingual|code")
_TEXT_FILE = re.compile(r"\.(txt|jsonl?|csv|tsv|parquet)$")
_FINGERPRINTS = ("student", "teachers", "data")
"""Entries of a recipe by which a resumed run knows its inputs; they mean nothing to a reader."""

_NO_LIMIT = 1_000_000
"""transformers writes an enormous `model_max_length` where a tokenizer has none."""
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert")


def facts_of(
    folder: Path | str,
    repo_id: str,
    *,
    measured: CardMeasured | None = None,
    record: Path | str | None = None,
    license: str | None = None,  # noqa: A002  (the Hub's own word)
    languages: Sequence[str] = (),
    base_models: Sequence[str] = (),
) -> CardFacts:
    """Read the facts of a saved model.

    Args:
        folder: the folder, as `save_pretrained` writes it.
        repo_id: the id that the model will have on the Hub.
        measured: what result files say (`eval_harness.publish.card_results`).
        record: the folder with the record of its distillation, where it is not the same one: a
            fine-tuned model's record lies with the model that was fine-tuned.
        license: the licence of the teacher or base model, by the Hub's id; None if unknown.
        languages: language codes, such as "en".
        base_models: Hub ids of the models that it derives from, where the records do not know them.

    Raises:
        UserError: a file is missing or damaged, or an argument is not what the Hub accepts.
    """
    for name in (repo_id, *base_models):
        if not _is_id(name):
            raise UserError(f"model card: {name!r} is not a Hub id: expected OWNER/NAME")
    if license is not None and not LICENSE.fullmatch(license):
        raise UserError(
            f"model card: licence {license!r} is not one of the Hub's ids, such as apache-2.0"
        )
    for language in languages:
        if not LANGUAGE.fullmatch(language):
            raise UserError(f"model card: {language!r} is not a language code, such as en")
    shape, tuning = _shape(Path(folder)), measured.fine_tuning if measured is not None else None
    if tuning is not None and shape.task not in (None, tuning.task):
        raise UserError(
            f"model card: {folder} was fine-tuned for {shape.task}, and the results given are "
            f"those of {tuning.task}"
        )
    return CardFacts(
        repo_id=repo_id,
        shape=shape,
        pretraining=_pretraining(Path(record if record is not None else folder)),
        measured=measured or CardMeasured(),
        license=license,
        languages=tuple(languages),
        base_models=tuple(base_models),
        steps=tuple(map(_step, map(_mapping, _list(_record_in(Path(folder)).get(LINEAGE))))),
    )


def _shape(folder: Path) -> CardShape:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; expected a folder written by save_pretrained")
    config = _mapping(read_json(path))
    if not config:
        raise UserError(f"{path}: not a model's config: expected an object")
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    weights = [each for path in _weight_files(folder) for each in weights_in(path)]
    return CardShape(
        architecture=_matching(first, _WORD),
        task=_matching(config.get("finetuning_task"), re.compile(r"[\w.-]{1,100}")),
        layers=_count(config, "n_layers", "num_hidden_layers", "n_layer"),
        width=_count(config, "dim", "hidden_size", "n_embd"),
        vocabulary=_count(config, "vocab_size"),
        max_tokens=_max_tokens(config, folder / "tokenizer_config.json"),
        labels=_labels(config),
        is_regression=config.get("problem_type") == "regression",
        parameters=sum(count for _, count in weights) or None,
        bytes=sum(path.stat().st_size for path in _weight_files(folder)) or None,
        dtypes=tuple(sorted({dtype for dtype, _ in weights})),
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes; nothing where transformers made them up."""
    names = _mapping(config.get("id2label"))
    if any(not key.isdecimal() for key in names):
        return ()
    labels = tuple(plain(names[key]) for key in sorted(names, key=int))
    return () if all(re.fullmatch(r"LABEL_\d+", label) for label in labels) else labels


def _max_tokens(config: Mapping[str, Any], tokenizer_config: Path) -> int | None:
    """Return the longest input that both the positions and the tokenizer allow."""
    positions = _count(config, "max_position_embeddings", "n_positions")
    if positions is not None and config.get("model_type") in _PADDED_POSITIONS:
        # The entries up to the padding token's are not used for tokens.
        positions -= (_count(config, "pad_token_id") or 0) + 1
    known = [positions]
    if tokenizer_config.is_file():
        known.append(_count(_mapping(read_json(tokenizer_config)), "model_max_length"))
    return min((count for count in known if count and count < _NO_LIMIT), default=None)


def _record_in(folder: Path) -> Mapping[str, Any]:
    """Return a folder's record; {} where there is none."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path}: not a valid distillation record: expected an object; remove it")
    return record


def _step(step: Mapping[str, Any]) -> CardStep:
    origin, found = _mapping(step.get("from")), _mapping(step.get("compared"))
    settings = _mapping(step.get("settings"))
    sizes = _numbers(_mapping(_mapping(settings.get("sizes")).get("to")))
    measured, score = _numbers(found), _numbers(step).get("score")
    judged = _mapping(found.get("score"))
    both = _numbers(judged)
    return CardStep(
        what=_matching(step.get("what"), _NAME) or "not recorded",
        file=_matching(step.get("file"), _FILE) or "not recorded",
        made_from=name_of(origin.get("name") or "") or None,
        sha256=_matching(step.get("sha256"), _HASH),
        from_sha256=_matching(origin.get("sha256"), _HASH),
        bytes=_count(step, "bytes"),
        sizes={name: int(value) for name, value in sizes.items()},
        scores=tuple(each for each in _list(settings.get("scores")) if _matching(each, _WORD)),
        difference=measured.get("largest_difference"),
        agreement=measured.get("share_of_equal_answers"),
        metric=_matching(judged.get("metric"), _WORD),
        before=_in_percent(both.get("before")),
        after=_in_percent(both.get("after")),
        rows=_count(found, "rows"),
        data=name_of(found.get("data") or settings.get("data") or "") or None,
        task=_matching(settings.get("task"), _NAME),
        limit=_count(settings, "limit"),
        score=None if score is None else score * (100 if step.get("is_share") else 1),
    )


def _in_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("model*.safetensors") if path.is_file())


def _pretraining(folder: Path) -> CardPretraining | None:
    """Read the record of a student's training; None where there is none."""
    record = _record_in(folder)
    if not record or (LINEAGE in record and "recipe" not in record):  # cut or exported alone
        return None
    recipe, student = _mapping(record.get("recipe")), _mapping(record.get("student"))
    asked, machine = _mapping(student.get("asked_for")), _mapping(record.get("machine"))
    layers = student.get("layers_of_the_teacher")
    return CardPretraining(
        teachers=tuple(map(_teacher, map(_mapping, _list(record.get("teachers"))))),
        weights={
            name: value
            for name, value in sorted(_numbers(recipe).items())
            if name.startswith("alpha_")
        },
        settings=dict(_settings(recipe)),
        corpus=_corpus(_mapping(record.get("corpus"))),
        status=_matching(record.get("status"), _WORD),
        steps=_count(record, "step"),
        ablation=_matching(record.get("ablation"), re.compile(r"[a-z-]{1,40}")),
        init=_init(asked),
        layers=tuple(layer for layer in _list(layers) if type(layer) is int),
        perplexity=_numbers(_mapping(record.get("validation"))).get("eval_perplexity"),
        history=tuple(_history(record.get("validation_history"))),
        versions=_versions(_mapping(record.get("versions"))),
        device=_matching(record.get("device"), _DEVICE),
        threads=_count(record, "threads"),
        processor=_matching(machine.get("processor"), _PROCESSOR),
        seconds=_numbers(_mapping(record.get("times")), _STAGE),
    )


def _init(asked: Mapping[str, Any]) -> str | None:
    """Return where the first weights came from; a config that was given has none."""
    init = _matching(asked.get("student_init"), _WORD)
    return "given" if asked.get("student") and init != "random" else init


def _history(entries: object) -> Iterator[tuple[int, float | None, float | None]]:
    for entry in map(_mapping, _list(entries)):
        numbers = _numbers(entry)
        if (step := _count(entry, "step")) is not None:
            yield step, numbers.get("eval_loss"), numbers.get("eval_perplexity")


def _teacher(identity: Mapping[str, Any]) -> CardTeacher:
    """Return a teacher: on the Hub if its record has a commit, else a folder without its path."""
    revision = _matching(identity.get("revision"), _HASH)
    source = str(identity.get("source"))
    hub = source if revision and _is_id(source) else None
    return CardTeacher(
        name=hub or name_of(identity.get("name") or "") or "a model without a name",
        hub=hub,
        revision=revision if hub else None,
        sha256=_matching(identity.get("sha256"), _HASH),
    )


def _corpus(record: Mapping[str, Any]) -> CardCorpus | None:
    if not record:
        return None
    if "streamed" in record:
        names = [str(name) for name in _list(record["streamed"])]
        # Of a stream the names alone are recorded: an id with its owner can't be a file's name.
        hub = [name for name in names if "/" in name and _hub_id(name)]
    else:
        sources = list(map(_mapping, _list(record.get("sources"))))
        names = [str(source.get("name")) for source in sources]
        hub = [
            name
            for name, source in zip(names, sources, strict=True)
            if str(source.get("identity")).startswith(f"hub:{name}") and _hub_id(name)
        ]
    train, held_out = _mapping(record.get("train")), _mapping(record.get("validation"))
    shown = (plain(name) if name in hub else name_of(name) for name in names)
    return CardCorpus(
        names=tuple(filter(None, shown)),
        hub=tuple(dict.fromkeys(filter(None, map(_hub_id, hub)))),
        fingerprint=_matching(record.get("fingerprint"), _HASH),
        texts=_count(_mapping(record.get("tally")), "texts"),
        sequences=_count(train, "sequences"),
        tokens=_count(train, "tokens"),
        held_out=_count(held_out, "sequences"),
        max_length=_count(_mapping(record.get("options")), "max_length"),
        streamed="streamed" in record,
    )


def _hub_id(name: str) -> str | None:
    """Return the id in the name of a Hub data set, `id@commit:config`; None for a file's."""
    repo_id, _, config = name.partition(":")
    repo_id, _, _ = repo_id.partition("@")
    is_config = not config or re.fullmatch(r"[\w.-]+", config)
    return repo_id if _is_id(repo_id) and is_config and not _TEXT_FILE.search(name) else None


def _is_id(name: str) -> bool:
    return REPO_ID.fullmatch(name) is not None and not name.startswith(".")


def _settings(recipe: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a recipe that are numbers, words, or switches that are on."""
    for name, value in sorted(recipe.items()):
        if name.startswith("alpha_") or name in _FINGERPRINTS or not _WORD.fullmatch(name):
            continue
        if (type(value) in (bool, int, float) and value is not False) or (
            isinstance(value, str) and _SETTING.fullmatch(value)
        ):
            yield name, value


def _versions(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: version
        for name, version in sorted(record.items())
        if re.fullmatch(r"[\w-]{1,40}", name) and _matching(version, _VERSION)
    }


def _numbers(record: Mapping[str, Any], names: re.Pattern[str] = _WORD) -> dict[str, float]:
    return {
        name: value
        for name, value in record.items()
        if type(value) in (int, float) and names.fullmatch(name)
    }


def _matching(value: object, pattern: re.Pattern[str]) -> str | None:
    """Return a text that has the form that it must have; None for anything else."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _count(record: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these entries that is a count."""
    found = (record.get(name) for name in names)
    return next((value for value in found if type(value) is int and value >= 0), None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
