"""Entry points of distillation; `run_pretrain_distill`: its flags, and checks without torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import Command, run_command
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero, is_fraction, is_seed, not_negative
from angels_share.hub.locate import locate
from angels_share.hub.push import check_repository
from angels_share.hub.push_flags import PUSH_FLAGS, destination_of
from angels_share.program import Program
from angels_share.training_flags import TrainingUse
from distil_trainer.recipe import (
    DEFAULTS,
    PRESETS,
    TERMS,
    WEIGHTS,
    Divergence,
    Term,
    check_used,
    check_weights,
    default_weights,
    parse_layers,
)
from distil_trainer.training.honoured import NO_EFFECT, NO_EFFECT_ON_TEXT, refusal_for_text


def _inside(value: float) -> str | None:
    return None if 0 < value < 1 else "must be above 0 and below 1"


def _weight_flag(term: Term) -> Flag:
    masked, causal = (term.defaults.get(mode, 0.0) for mode in ("masked", "causal"))
    default = f"{masked:g}" if masked == causal else f"{masked:g}; {causal:g} for a causal student"
    text = f"weight of {term.title}, {term.subject} [{default}]"
    return Flag(term.weight, text, float, check=not_negative)


_MODEL_FLAGS = (
    Flag(
        "teacher",
        "teacher: short name, folder or Hub id; of several, all give soft targets and the first "
        "also initial weights and L_cos; `none` trains without distillation",
        many=True,
        required=True,
    ),
    Flag(
        "student",
        "student folder, or a config.json of any size: the teacher's weights are cut to it, or "
        "it starts at random (--student_init)",
    ),
    Flag(
        "student_layers",
        "teacher layers to keep, counted from 0, such as 0,2,4,7,9,11",
        metavar="LIST",
    ),
    Flag(
        "num_layers",
        "number of teacher layers to keep, evenly spaced, in the teacher's rhythm where kinds of "
        "attention alternate [half of them]",
        int,
        check=above_zero,
    ),
    Flag(
        "student_init",
        "initialize the student from the teacher's weights or at random",
        default="teacher",
        choices=("teacher", "random"),
    ),
    Flag(
        "architecture",
        "student architecture, such as `bert` [DistilBERT for a BERT, else the teacher's]",
    ),
    Flag("copy_head_transform", "also copy the head's transform layer", bool, default=True),
    Flag(
        "fold_token_types",
        "add the type-0 embedding, which DistilBERT lacks, to the position embeddings",
        bool,
    ),
    Flag("freeze_pos_embs", "don't train the table of position embeddings", bool),
    Flag(
        "tokenizer",
        "short name, folder or Hub id of the tokenizer [the teacher's, else the student's]",
    ),
)

_LOSS_FLAGS = (
    Flag("preset", "hyper-parameters of the paper (`paper`)", choices=tuple(PRESETS)),
    Flag(
        "ablation",
        "a student of the paper's Table 4, or `all` in turn",
        choices=(*ABLATIONS, "all"),
    ),
    Flag(
        "seeds",
        "several students, of one seed each, in OUTPUT_DIR/seed-N; instead of --seed",
        int,
        many=True,
        check=is_seed,
    ),
    *(_weight_flag(term) for term in TERMS if term.weight in WEIGHTS),
    Flag("temperature", "softmax temperature in L_ce", float, 2.0, check=above_zero),
    Flag(
        "divergence",
        "in L_ce: from the teacher to the student (`kl`), or from the student to the teacher "
        "(`reverse_kl`), which prefers one likely token to covering all",
        default="kl",
        choices=get_args(Divergence),
    ),
    Flag(
        "relation_layer",
        "layer of the first teacher whose relations L_rel compares, counted from 0 [the last]",
        int,
        check=not_negative,
    ),
    Flag(
        "relation_heads",
        "heads into which L_rel splits queries, keys and values [as many as leave 8 dimensions "
        "to each]",
        int,
        check=above_zero,
    ),
    Flag("restrict_ce_to_mask", "compute L_ce and L_mse at masked tokens only", bool),
    Flag("mlm_probability", "fraction of tokens to mask", float, 0.15, check=_inside),
    Flag(
        "mlm_smoothing",
        "tokens are drawn with weight count^-x; 0 draws uniformly",
        float,
        0.7,
        check=not_negative,
    ),
    Flag(
        "mask_scope",
        "where that fraction is exact: in each example, in each micro-batch, or nowhere (`token`: "
        "each token is masked independently)",
        default="example",
        choices=("example", "batch", "token"),
    ),
)

_DATA_FLAGS = (
    Flag(
        "corpus",
        "text: files, folders, globs, a Hub data set, or the address of parquet files",
        many=True,
        required=True,
    ),
    Flag("output_dir", "folder for the student and its checkpoints", required=True, metavar="DIR"),
    Flag("corpus_dir", "cache of the tokenized corpus [OUTPUT_DIR/corpus]", metavar="DIR"),
    Flag(
        "stream_corpus",
        "tokenize while training, without a copy on disk; requires --max_steps",
        bool,
    ),
    Flag(
        "pretokenized",
        "the corpus holds token ids of this tokenizer in a column `input_ids` (.parquet, .arrow, "
        "Hub data, an address), taken as they are",
        bool,
    ),
    Flag("text_column", "text column of .jsonl, .csv, .parquet or Hub data", default="text"),
    Flag("max_seq_length", "maximum sequence length in tokens", int, 512, check=above_zero),
    Flag("min_tokens", "drop sequences of fewer tokens", int, 12, check=above_zero),
    Flag("max_unknown", "drop sequences with this fraction of [UNK] or more", float, 0.5),
    Flag(
        "validation_fraction",
        "fraction of sequences held out for validation",
        float,
        0.005,
        check=is_fraction,
    ),
    Flag(
        "tokens_per_batch",
        "batch size in tokens, padding included, instead of in sequences",
        int,
        check=above_zero,
    ),
    Flag(
        "shard_student",
        "under torchrun: spread the student over the processes (FSDP2), a part of each weight in "
        "each; teachers stay whole",
        bool,
    ),
    Flag(
        "resume_from_checkpoint",
        "checkpoint to resume from; without a value the newest complete one; `auto`: that, or a "
        "fresh start where there is none",
        bare="latest",
    ),
    Flag(
        "allow_inexact_resume",
        "resume although part of the checkpoint is missing or settings differ",
        bool,
    ),
)


def with_preset(options: Options) -> Options:
    """Return the options with a preset's values in place of defaults; flags that were given win."""
    if options.preset is None:
        return options
    recipe: Mapping[str, Any] = PRESETS[options.preset]
    chosen = {name: value for name, value in recipe.items() if name not in options.given}
    ours = {name: value for name, value in chosen.items() if name in options.values}
    theirs = {name: value for name, value in chosen.items() if name not in ours}
    return replace(
        options,
        values={**options.values, **ours},
        training={**theirs, **options.training},
    )


def _check_corpus(options: Options) -> None:
    """Refuse flags of the corpus that another one leaves without effect."""
    if options.stream_corpus and options.training.get("max_steps", -1) <= 0:
        raise UserError("--stream_corpus has no end: set --max_steps")
    if options.stream_corpus and options.training.get("eval_strategy", "no") != "no":
        raise UserError("--eval_strategy: --stream_corpus holds no texts out; drop one of them")
    for name in ("validation_fraction", "corpus_dir"):
        if options.stream_corpus and name in options.given:
            raise UserError(f"--{name} has no effect with --stream_corpus, which keeps nothing")
    if options.pretokenized:
        for name in ("text_column", "min_tokens", "max_unknown"):
            if name in options.given:
                raise UserError(f"--{name} is about texts; --pretokenized takes rows as they are")


def _run(parsed: Options) -> int:
    """Refuse bad input before torch is imported, then train."""
    options = with_preset(parsed)
    # Whether the student is masked or causal isn't known yet, so the defaults of both count.
    defaults = {**default_weights("masked"), **default_weights("causal")}
    for ablation in ABLATIONS if options.ablation == "all" else (options.ablation or FULL,):
        chosen = {**options.values, **ABLATIONS[ablation].changes}
        weights = {
            name: defaults[name] if chosen[name] is None else chosen[name] for name in WEIGHTS
        }
        check_weights(weights)
        check_used(weights, chosen)
    _check_corpus(options)
    if options.seeds and "seed" in options.training:
        raise UserError("--seeds and --seed: pass only one of them")
    if options.student_layers:
        parse_layers(options.student_layers)
    if options.teacher != ["none"]:
        for name in options.teacher:
            locate(name)
    elif options.student is None:
        raise UserError("--teacher none requires --student FOLDER or --student config.json")
    require_writable_folder(options.output_dir, "--output_dir")
    destination = destination_of(options, Path(options.output_dir).resolve().name)
    if destination is not None and options.ablation != "all" and not options.seeds:
        check_repository(destination)
    from distil_trainer.pretrain import pretrain

    return pretrain(options, destination)


_FROM_THE_CONFIG = "read from the model's config; drop it"
_FROM_THE_CORPUS = "prepared from --corpus by itself; drop it"
_LAUNCHER = "use torchrun --nproc_per_node N run_pretrain_distill.py"
_OTHER_SCRIPTS = {
    "model": "use --teacher, and --student for a student that exists",
    "limit": "use --max_steps to train on less, or a smaller --corpus",
    "max_train_samples": "use --max_steps to train on less, or a smaller --corpus",
    "max_eval_samples": "use --validation_fraction",
    "validation_file": "use --validation_fraction: part of --corpus is held out",
    "validation_split_percentage": "use --validation_fraction, between 0 and 1",
    "force": "a folder that holds a student is never deleted: choose another --output_dir",
    "overwrite_output_dir": "a folder that holds a student is never overwritten: choose another "
    "--output_dir",
    "overwrite_cache": "a prepared corpus is known by its content; drop it",
    "teacher_type": _FROM_THE_CONFIG,
    "model_type": _FROM_THE_CONFIG,
    "config_name": "use --student config.json with --student_init random",
    "token_counts": _FROM_THE_CORPUS,
    "mlm": "it follows from the student's architecture; drop it",
    "word_mask": "80, 10 and 10 % are fixed here; in Python: MaskingOptions",
    "word_keep": "80, 10 and 10 % are fixed here; in Python: MaskingOptions",
    "word_rand": "80, 10 and 10 % are fixed here; in Python: MaskingOptions",
    "freeze_token_type_embds": "a DistilBERT student has none; drop it",
    "group_by_size": "batches always hold sequences of similar length; drop it",
    "group_by_length": "batches always hold sequences of similar length; drop it",
    "initializer_range": "set it in the student's config",
    "n_gpu": _LAUNCHER,
    "num_seeds": "use --seeds, which lists them",
    "cache_dir": "set HF_HOME",
}

PRETRAIN = Command(
    name="run_pretrain_distill",
    summary="distils a student from a teacher while pre-training on a corpus",
    flags=(*_MODEL_FLAGS, *_DATA_FLAGS, *_LOSS_FLAGS, *PUSH_FLAGS),
    run=_run,
    examples=(
        "python run_pretrain_distill.py --teacher bert --corpus wiki.txt --output_dir my-distil",
        "python run_pretrain_distill.py --teacher my-bert --corpus texts/ --num_layers 3 "
        "--output_dir small",
        "python run_pretrain_distill.py --teacher none --student config.json --student_init random "
        "--tokenizer bert --corpus my.txt --output_dir baseline",
    ),
    training=TrainingUse(
        refusal=refusal_for_text,
        defaults={name: str(value) for name, value in DEFAULTS.items()},
        no_effect={
            **NO_EFFECT,
            **NO_EFFECT_ON_TEXT,
            "do_eval": "--eval_strategy says when to evaluate",
        },
        help={
            "optim": "The optimizer: any of transformers' OptimizerNames but GaLore, APOLLO and "
            "LOMO, which update outside of the step that is checked and saved",
            "seed": "Random seed of the student's weights, masks, data order and dropout",
        },
    ),
    instead=_OTHER_SCRIPTS,
)


PROGRAM = Program(
    "distil_trainer",
    ("prune", "export"),
    scripts={"pretrain": "run_pretrain_distill", "distil": "run_pretrain_distill"},
    beside="Students are trained by run_pretrain_distill.py.",
)


def distil_trainer() -> int:
    """Run `python -m distil_trainer COMMAND`."""
    return PROGRAM.run()


def run_pretrain_distill() -> int:
    """Run `run_pretrain_distill`."""
    return run_command(PRETRAIN)
