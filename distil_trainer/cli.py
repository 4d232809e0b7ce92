"""The door of distillation while pre-training: its flags, and what is checked before torch."""

from angels_share.cli import Door, open_door
from angels_share.errors import RunFailed, UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero, is_share, not_negative
from angels_share.names import locate
from distil_trainer.recipe import ABLATIONS, PRESETS, check_weights, parse_layers

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
)

_WHAT = (
    Flag("alpha_ce", "weight of the teacher's soft targets", float, 5.0, check=not_negative),
    Flag("alpha_mlm", "weight of the masked words [2; 0 for GPT-2]", float, check=not_negative),
    Flag("alpha_clm", "weight of the next word [0; 2 for GPT-2]", float, check=not_negative),
    Flag("alpha_mse", "weight of the squared distance of logits", float, 0.0, check=not_negative),
    Flag("alpha_cos", "weight of the hidden states' angle", float, 1.0, check=not_negative),
    Flag("temperature", "softens teacher and student", float, 2.0, check=above_zero),
    Flag("restrict_ce_to_mask", "soft targets at the masked words only", bool),
    Flag("mlm_probability", "share of words that are masked", float, 0.15, check=is_share),
    Flag("mlm_smoothing", "words weigh count^-this; 0: all alike", float, 0.7, check=not_negative),
    Flag(
        "mask_scope",
        "the share holds in each example, in each micro-batch, or by a coin per token",
        default="example",
        choices=("example", "batch", "token"),
    ),
    Flag("preset", "`paper`: the published recipe to the letter", choices=tuple(PRESETS)),
    Flag("ablation", "leave one thing out, or `all` in turn", choices=(*ABLATIONS, "all")),
)

_WHERE = (
    Flag("corpus", "text: files, folders, globs, or a Hub data set", many=True, required=True),
    Flag("output_dir", "where the student goes", required=True, metavar="DIR"),
    Flag(
        "resume_from_checkpoint",
        "go on from this checkpoint, or from the newest whole one",
        bare="latest",
    ),
)


def _pretrain(options: Options) -> int:
    if options.ablation != "all":
        weights = {
            name: options.values[name] if options.values[name] is not None else 2.0
            for name in ("alpha_ce", "alpha_mlm", "alpha_clm", "alpha_mse", "alpha_cos")
        }
        check_weights(weights)
    if options.student_layers:
        parse_layers(options.student_layers)
    if options.teacher != ["none"]:
        for name in options.teacher:
            locate(name)
    elif options.student is None:
        raise UserError("--teacher none wants --student FOLDER or --student config.json")
    require_writable_folder(options.output_dir, "--output_dir")
    raise RunFailed("distillation is not built yet; README says what stands today")


PRETRAIN_DOOR = Door(
    name="run_pretrain_distill",
    summary="distils a student from a teacher while pre-training on a corpus",
    flags=(*_WHO, *_WHERE, *_WHAT),
    run=_pretrain,
    examples=(
        "python run_pretrain_distill.py --teacher bert --corpus wiki.txt --output_dir my-distil",
        "python run_pretrain_distill.py --teacher my-bert --corpus texts/ --num_layers 3 "
        "--output_dir small",
        "python run_pretrain_distill.py --teacher none --student config.json --student_init random "
        "--corpus my.txt --output_dir baseline",
    ),
    takes_training_flags=True,
)


def run_pretrain_distill() -> int:
    """The entry point of `run_pretrain_distill`."""
    return open_door(PRETRAIN_DOOR)
