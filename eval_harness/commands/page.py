"""`python -m eval_harness page`: a page that runs an exported model in a browser.

python -m eval_harness page my-sst2 --serve
"""

import re
from contextlib import suppress
from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero
from eval_harness.page.serve import server_of
from eval_harness.page.write import Request, write_page


def run(options: Options) -> int:
    """Write the page, and serve it if that is wanted.

    Raises:
        UserError: the model, the examples, npm or the port isn't there.
    """
    _require_used(options)
    model = Path(options.model).expanduser()
    name = options.name or model.resolve().name
    folder = Path(options.output_dir or f"{_file_name(name)}-page").expanduser().resolve()
    require_writable_folder(folder.parent, "--output_dir")
    server = server_of(folder, options.port) if options.serve else None
    try:
        request = Request(
            model=model,
            folder=folder,
            name=name,
            examples=None if options.examples is None else Path(options.examples).expanduser(),
            text_columns=tuple(options.text_columns or ()),
            limit=options.limit,
        )
        print(write_page(request), flush=True)  # noqa: T201
        if server is not None:
            host, port = server.server_address[:2]
            print(f"http://{host!s}:{port}/ (Ctrl-C ends it)", flush=True)  # noqa: T201
            with suppress(KeyboardInterrupt):  # it is how to end it
                server.serve_forever()
    finally:
        if server is not None:
            server.server_close()
    return DONE


def _file_name(name: str) -> str:
    """Return a name as a folder can have it everywhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _require_used(options: Options) -> None:
    """Refuse flags that would have no effect."""
    for name in ("text_columns", "limit"):
        if options.examples is None and name in options.given:
            raise UserError(f"--{name} is about --examples FILE, which is not given")
    if not options.serve and "port" in options.given:
        raise UserError("--port is about --serve, which is not given")


def _is_port(value: int) -> str | None:
    return None if 0 <= value <= 65535 else "must be from 0 to 65535"


COMMAND = Command(
    name="eval_harness page",
    summary="writes a page that runs an exported int8 model in a browser",
    flags=(
        Flag(
            "model",
            "folder of a fine-tuned model that `distil_trainer export --quantize int8` wrote into",
            required=True,
            first=True,
        ),
        Flag("output_dir", "folder for the page: new, empty or a page [NAME-page]", metavar="DIR"),
        Flag("name", "what the page calls the model [the folder's name]", metavar="NAME"),
        Flag(
            "examples",
            "texts shown with torch's answers: .txt, a text per line, or .csv, .tsv, .jsonl, "
            ".json or .parquet [a few sentences of ours]",
            metavar="FILE",
        ),
        Flag(
            "text_columns",
            "columns of their text, one or two [those of the model's task, else the first of "
            "text, sentence, sentence1 and sentence2, premise and hypothesis, ...]",
            many=True,
        ),
        Flag("limit", "maximum number of examples", int, 20, check=above_zero),
        Flag("serve", "serve the page on this machine until Ctrl-C", bool),
        Flag("port", "port to serve on; 0: any that is free", int, 8000, check=_is_port),
    ),
    run=run,
    examples=(
        "python -m eval_harness page my-sst2 --serve",
        "python -m eval_harness page my-sst2 --examples dev.csv --output_dir sst2-page",
    ),
)
