"""`python -m eval_harness push`: a saved model, or results, on the Hub.

python -m eval_harness push results/models/KEY --repo_id me/student-rte
"""

import sys
from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.hub.push import Destination, push, require_login, require_name
from angels_share.model_files import CARD
from eval_harness.publish.models import upload_of
from eval_harness.publish.results_data import upload_of_results


def run(options: Options) -> int:
    """Push a folder in one commit; the same again makes none.

    Raises:
        UserError: nothing in it may go up, or the Hub doesn't take it: then nothing of it is there.
    """
    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not options.results and any(folder.glob("runs/*/*/*/seed-*.json")):
        raise UserError(f"{folder}: this is a folder of results: add --results")
    if options.results and "results_dir" in options.given:
        raise UserError("--results_dir is for a model: with --results the folder itself is pushed")
    require_name(options.repo_id)
    place = Destination(
        options.repo_id,
        what="dataset" if options.results else "model",
        private=options.private,
        revision=options.revision,
    )
    if not options.dry_run:
        place = require_login(place)
    elif "/" not in place.repo_id:
        place = Destination(f"you/{place.repo_id}", place.what, place.private, place.revision)
    if options.results:
        upload = upload_of_results(folder, place)
    else:
        results = Path(options.results_dir).expanduser()
        upload = upload_of(folder, results, place)
        if not any(name.startswith("results/") for name in upload.files):
            sys.stderr.write(
                f"{COMMAND.name}: {results} has no results of this model (--results_dir), so the "
                "card states none\n"
            )
    if options.dry_run:
        print(upload.listing())  # noqa: T201
        print(f"\n{CARD}:\n\n{upload.card(None)}")  # noqa: T201
        return DONE
    print(push(upload, place))  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness push",
    summary="pushes a saved model, or a folder of results, to the Hub in one commit",
    flags=(
        Flag(
            "folder",
            "a saved model, or with --results a results folder",
            required=True,
            first=True,
            metavar="DIR",
        ),
        Flag("repo_id", "NAME or OWNER/NAME on the Hub", required=True, alias="hub_model_id"),
        Flag(
            "private",
            "whether a new repository is private (--private False: public)",
            bool,
            default=True,
            alias="hub_private_repo",
        ),
        Flag("revision", "branch to push to [main]", alias="hub_revision"),
        Flag("results", "push results as a data set: records, tables, never predictions", bool),
        Flag(
            "results_dir",
            "folder whose results of the model go up with it",
            default="results",
            metavar="DIR",
        ),
        Flag("dry_run", "list every file with its size and print the card; ask nobody", bool),
    ),
    run=run,
    examples=(
        "python -m eval_harness push student --repo_id me/student",
        "python -m eval_harness push student --repo_id me/student --dry_run",
        "python -m eval_harness push results --results --repo_id me/results",
    ),
)
