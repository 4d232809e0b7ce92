"""What a saved model is kept with: a card beside it, and lines of Python that load it. No torch.

The card is what a push would put up, made offline from the same result files. It isn't part of the
folder's seal, so that people may write into it; what they wrote stays.
"""

from pathlib import Path

from angels_share.card.facts import pipeline_of
from angels_share.card.usage import code_for
from angels_share.errors import UserError
from angels_share.files import explain, write_atomically
from angels_share.hub.push import Destination
from angels_share.model_files import CARD
from eval_harness.publish.models import upload_of
from eval_harness.runs.run import Run


def write_card(run: Run, root: Path) -> None:
    """Write the card of a run's saved model, or its new figures into the card that is there.

    Args:
        run: the run, whose model is saved.
        root: the results folder.

    Raises:
        UserError: there can't be a card: the result disagrees with its predictions, or the markers
            or the metadata of the card that is there are damaged.
    """
    folder = Path(str(run.save_weights_to))
    path = folder / CARD
    distilled = "distilled-" if run.method else ""
    place = Destination(f"{run.model.slug}-{distilled}{run.task.name}")
    card = upload_of(folder, root, place, is_here=True).card
    try:
        existing = path.read_bytes().decode("utf-8") if path.exists() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    if (text := card(existing)) != existing:
        write_atomically(path, text)


def lines_that_load(run: Run) -> str:
    """Return lines of Python that load a run's saved model and use it once."""
    pipeline = pipeline_of(run.task.kind.heads[0]) or ""
    return code_for(pipeline, str(run.save_weights_to), texts=len(run.task.columns)).rstrip()
