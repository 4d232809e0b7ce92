"""A results folder as a data set: its tables as the card, a row a run. Imports no torch.

Never predictions, texts or labels: the records say that the predictions are withheld.
"""

import io
import json
from pathlib import Path
from typing import Any

from angels_share.card.merge import BEGIN, END, Existing, remembered
from angels_share.errors import UserError
from angels_share.hub.push import Destination, Upload
from eval_harness.publish.models import published, records_of
from eval_harness.results.record import TaskResult, texts_added
from eval_harness.results.store import find
from eval_harness.tables.write import texts_by_name

_ROWS = "runs.parquet"
_METADATA = {
    "pretty_name": "Results of Angel's Share",
    "tags": ["angels-share", "evaluation-results"],
    "configs": [
        {"config_name": "default", "data_files": [{"split": "runs", "path": _ROWS}]},
    ],
}
_EXPLANATION = f"""Scores of fine-tuned models, measured by Angel's Share. `{_ROWS}` has a row a run
(a model, a task, a seed); `results/` has each run's whole record, with its settings, data revision,
code version and hardware, sealed by a checksum. Predictions, texts and labels are not published.

```python
from datasets import load_dataset

runs = load_dataset("{{repo_id}}", split="runs").to_pandas()
```"""


def upload_of_results(root: Path, place: Destination) -> Upload:
    """Return what goes up of a results folder.

    Args:
        root: the results folder.
        place: the data set that it becomes.

    Raises:
        UserError: it holds no result that counts.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    results = list(find(root).by_key.values())
    if not results:
        raise UserError(f"{root}: holds no result that counts")
    tables = texts_by_name(root)
    files: dict[str, Path | bytes] = dict(records_of(root, results))
    files[_ROWS] = _parquet([row_of(each) for each in results])
    order = [name for name in tables if name.startswith(("table", "family", "distil"))]
    models = {each.model.name for each in results}
    # A table of the paper's rows alone is no result of these.
    shown = [tables[name] for name in order if any(f"| {m} " in tables[name] for m in models)]
    title = f"# {place.repo_id.rpartition('/')[2]}"
    body = "\n\n".join([_EXPLANATION.replace("{repo_id}", place.repo_id), *shown])

    def card(existing: str | None) -> str:
        page = Existing(existing or "")
        metadata = page.merged(_METADATA, tuple(_METADATA))
        part = "\n".join([BEGIN, remembered(_METADATA), "", body, "", END])
        return page.with_part(metadata, part, title)

    return Upload(files, card, "Push results by Angel's Share")


def row_of(result: TaskResult) -> dict[str, Any]:
    """Return a run as a row: what it was, its scores, and what they depend on."""
    record = json.loads(published(result))
    values = record["settings"]["task"]["values"]
    return {
        "model": result.model.name,
        "model_key": result.model.key,
        "model_source": record["model"]["source"],
        "model_revision": result.model.revision,
        "teacher": result.model.teacher,
        "task": result.task,
        "seed": result.seed,
        "score": result.score,
        "scores": json.dumps(record["scores"], sort_keys=True),
        "method": (record["settings"]["row"].get("method") or {}).get("name"),
        "transfer_texts": texts_added(result),
        "limit": record["settings"]["row"].get("limit"),
        "choose": record["settings"]["row"].get("choose"),
        "hyper_parameters": json.dumps(values, sort_keys=True),
        "data_source": record["data"].get("source"),
        "data_revision": record["data"].get("revision"),
        "data_content": record["data"].get("content"),
        "stand_in_data": record["data"].get("name"),
        "marks": "; ".join(result.marks),
        "version": record["provenance"].get("version"),
        "device": record["provenance"].get("device"),
        "threads": record["provenance"].get("threads"),
        "finished": result.finished,
        "record": f"results/{result.key}.json",
    }


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    # Named, or a column without a value in these runs would have no type.
    whole = ("seed", "transfer_texts", "limit", "threads")
    kinds = {**dict.fromkeys(whole, pa.int64()), "score": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    rows.sort(key=lambda row: str(row["record"]))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()
