"""Fine-tune on one GLUE task with the stock Trainer, as a script of its own: a baseline.

    python -m benchmarks.plain_glue --model_name_or_path FOLDER --train_file train.csv \
        --validation_file dev.csv --output_dir out --pad_to_max_length False

It does what such scripts do, and takes the flags of transformers' own run_glue.py: `datasets` reads
the files and tokenizes them, batches are drawn at random and padded to their longest text, or all
to `--max_seq_length`. Whoever has transformers' script can name it instead (`--script`).
"""

import argparse
import json
from pathlib import Path

import datasets
import numpy as np
import transformers
from transformers import Trainer, TrainingArguments


def main() -> None:
    """Parse the command line, fine-tune, evaluate, and write the score."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("model_name_or_path", "train_file", "validation_file", "output_dir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--pad_to_max_length", default="True", choices=["True", "False"])
    parser.add_argument("--per_device_train_batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--num_train_epochs", type=float, default=1.0)
    parser.add_argument("--weight_decay", type=float, default=0.0)
    parser.add_argument("--warmup_steps", type=float, default=0.0)
    parser.add_argument("--per_device_eval_batch_size", type=int, default=8)
    parser.add_argument("--save_strategy", default="no")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("do_train", "do_eval"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    transformers.set_seed(options.seed)
    files = {"train": options.train_file, "validation": options.validation_file}
    data = datasets.load_dataset("csv", data_files=files, cache_dir=options.output_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model_name_or_path, num_labels=len(set(data["train"]["label"]))
    )
    padding = "max_length" if options.pad_to_max_length == "True" else False
    names = [name for name in data["train"].column_names if name not in ("label", "idx")]

    def encode(rows: dict) -> dict:
        texts = [rows[name] for name in names]
        length = options.max_seq_length
        return tokenizer(*texts, padding=padding, max_length=length, truncation=True)

    data = data.map(encode, batched=True)
    arguments = TrainingArguments(
        options.output_dir,
        seed=options.seed,
        learning_rate=options.learning_rate,
        num_train_epochs=options.num_train_epochs,
        per_device_train_batch_size=options.per_device_train_batch_size,
        report_to="none",
        weight_decay=options.weight_decay,
        warmup_steps=options.warmup_steps,
        per_device_eval_batch_size=options.per_device_eval_batch_size,
        save_strategy=options.save_strategy,
        disable_tqdm=True,
    )
    collator = transformers.default_data_collator
    if not padding:
        collator = transformers.DataCollatorWithPadding(tokenizer)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=collator,
        compute_metrics=lambda found: {
            "accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))
        },
    )
    trainer.train()
    scores = trainer.evaluate()
    Path(options.output_dir, "all_results.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
