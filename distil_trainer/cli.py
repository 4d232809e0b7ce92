"""The door of distillation while pre-training: its flags, and what is checked before torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import Command, run_command
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero, is_share, not_negative
from angels_share.names import locate
from distil_trainer.recipe import (
    PRESETS,
    WEIGHTS,
    check_weights,
    default_weights,
    parse_layers,
)


def _inside(value: float) -> str | None:
    return None if 0 < value < 1 else "must lie between 0 and 1"


_WHO = (
    Flag(
        "teacher",
        "teacher: short name, folder or Hub id; of several the first gives weights and L_cos, all "
        "give soft targets; `none` trains the student plainly",
        many=True,
        required=True,
    ),
    Flag("student", "a student's folder, or a config.json with --student_init random"),
    Flag("student_layers", "the teacher's layers to keep, such as 0,2,4,7,9,11", metavar="LIST"),
    Flag(
        "num_layers", "so many of the teacher's layers, evenly spaced [half]", int, check=above_zero
    ),
    Flag(
        "student_init",
        "whether the student's weights come from the teacher",
        default="teacher",
        choices=("teacher", "random"),
    ),
    Flag("architecture", "the student's, where it isn't the usual one: `bert` keeps BERT's"),
    Flag(
        "copy_head_transform", "start the head's transform from the teacher's", bool, default=True
    ),
    Flag("fold_token_types", "add the type-0 embedding, else lost, to the positions", bool),
    Flag("freeze_pos_embs", "don't train the position table", bool),
    Flag("tokenizer", "where another than the teacher's (or student's) folder holds it"),
)

_WHAT = (
    Flag("preset", "`paper`: the published recipe to the letter", choices=tuple(PRESETS)),
    Flag("ablation", "leave one thing out, or `all` in turn", choices=(*ABLATIONS, "all")),
    Flag("alpha_ce", "weight of the teacher's soft targets [5]", float, check=not_negative),
    Flag("alpha_mlm", "weight of the masked words [2; 0 for GPT-2]", float, check=not_negative),
    Flag("alpha_clm", "weight of the next word [0; 2 for GPT-2]", float, check=not_negative),
    Flag("alpha_mse", "weight of the squared distance of logits [0]", float, check=not_negative),
    Flag("alpha_cos", "weight of the hidden states' angle [1]", float, check=not_negative),
    Flag("temperature", "softens teacher and student", float, 2.0, check=above_zero),
    Flag("restrict_ce_to_mask", "soft targets at the masked words only", bool),
    Flag("mlm_probability", "share of words that are masked", float, 0.15, check=_inside),
    Flag("mlm_smoothing", "words weigh count^-this; 0: all alike", float, 0.7, check=not_negative),
    Flag(
        "mask_scope",
        "the share holds in each example, in each micro-batch, or by a coin per token",
        default="example",
        choices=("example", "batch", "token"),
    ),
)

_WHERE = (
    Flag("corpus", "text: files, folders, globs, or a Hub data set", many=True, required=True),
    Flag("output_dir", "where the student goes", required=True, metavar="DIR"),
    Flag("corpus_dir", "where the prepared corpus is kept [OUTPUT_DIR/corpus]", metavar="DIR"),
    Flag("stream_corpus", "read it while training, never write it; wants --max_steps", bool),
    Flag("text_column", "the column of .jsonl, .csv, .parquet or Hub data", default="text"),
    Flag("max_seq_length", "tokens of the longest sequence", int, 512, check=above_zero),
    Flag("min_tokens", "shorter sequences are dropped", int, 12, check=above_zero),
    Flag("max_unknown", "sequences with this share of [UNK] are dropped", float, 0.5),
    Flag("validation_fraction", "share that is held out", float, 0.005, check=is_share),
    Flag("tokens_per_batch", "batches by tokens, not by sequences", int, check=above_zero),
    Flag(
        "resume_from_checkpoint",
        "go on from this checkpoint, or from the newest whole one",
        bare="latest",
    ),
    Flag("allow_inexact_resume", "resume without a lost part, or with other settings", bool),
)


def with_preset(options: Options) -> Options:
    """The options with a preset's values in the place of the defaults; what was given wins."""
    if options.preset is None:
        return options
    recipe: Mapping[str, Any] = PRESETS[options.preset]
    unsaid = {name: value for name, value in recipe.items() if name not in options.given}
    ours = {name: value for name, value in unsaid.items() if name in options.values}
    theirs = {name: value for name, value in unsaid.items() if name not in ours}
    return replace(
        options,
        values={**options.values, **ours},
        training={**theirs, **options.training},
    )


def _pretrain(given: Options) -> int:
    options = with_preset(given)
    for ablation in ABLATIONS if options.ablation == "all" else (options.ablation or FULL,):
        chosen = {**options.values, **ABLATIONS[ablation].changes}
        unsaid = {**default_weights("masked"), **default_weights("causal")}
        check_weights(
            {name: unsaid[name] if chosen[name] is None else chosen[name] for name in WEIGHTS}
        )
    if options.stream_corpus and options.training.get("max_steps", -1) <= 0:
        raise UserError("--stream_corpus has no end: say how many steps with --max_steps")
    if options.student_layers:
        parse_layers(options.student_layers)
    if options.teacher != ["none"]:
        for name in options.teacher:
            locate(name)
    elif options.student is None:
        raise UserError("--teacher none wants --student FOLDER or --student config.json")
    require_writable_folder(options.output_dir, "--output_dir")
    from distil_trainer.pretrain import pretrain

    return pretrain(options)


PRETRAIN = Command(
    name="run_pretrain_distill",
    summary="distils a student from a teacher while pre-training on a corpus",
    flags=(*_WHO, *_WHERE, *_WHAT),
    run=_pretrain,
    examples=(
        "python run_pretrain_distill.py --teacher bert --corpus wiki.txt --output_dir my-distil",
        "python run_pretrain_distill.py --teacher my-bert --corpus texts/ --num_layers 3 "
        "--output_dir small",
        "python run_pretrain_distill.py --teacher none --student config.json --student_init random "
        "--tokenizer bert --corpus my.txt --output_dir baseline",
    ),
    takes_training_flags=True,
)


def run_pretrain_distill() -> int:
    """The entry point of `run_pretrain_distill`."""
    return run_command(PRETRAIN)
