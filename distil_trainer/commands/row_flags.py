"""Flags of the commands that read rows of a file."""

from angels_share.flags import Flag, above_zero

TEXT_COLUMNS = Flag(
    "text_columns",
    "columns of its text, one or two [the first of text, sentence, sentence1 and sentence2, "
    "premise and hypothesis, ...]",
    many=True,
)
LABEL_COLUMN = Flag(
    "label_column",
    "column of its labels, by which a classifier is scored before and after, if there is one",
    default="label",
)
ROWS = Flag("rows", "maximum number of rows", int, 512, check=above_zero)
