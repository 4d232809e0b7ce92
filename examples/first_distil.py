"""Run a first distillation, with no network or download: `python examples/first_distil.py DIR`.

The text is Python's own language reference, which comes with every Python. A small BERT is trained
on it from scratch, then two students of half its depth see the same number of batches: one starts
from the teacher's layers and learns with the triple loss, the other learns from the text alone.
They are compared by the perplexity of held-out sentences. Everything is done by
run_pretrain_distill.py's command, as for real models and text; run it again to continue after an
interruption.
"""

import argparse
import json
import pydoc_data.topics
import re
import sys
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from angels_share.cli import DONE, run_command
from angels_share.files import write_atomically, write_json
from angels_share.student_record import RECORD
from distil_trainer.cli import PRETRAIN

VOCABULARY = 2000
TEACHER = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
}
STUDENT = {
    "model_type": "distilbert",
    "vocab_size": VOCABULARY,
    "dim": 128,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 512,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def write_text(folder: Path) -> Path:
    """Write the language reference, one paragraph per line; return the file."""
    paragraphs = [
        " ".join(paragraph.split())
        for text in pydoc_data.topics.topics.values()
        for paragraph in re.split(r"\n\s*\n", text)
    ]
    lines = [line for line in dict.fromkeys(paragraphs) if len(line) > 60]
    return write_atomically(folder / "reference.txt", "\n".join(lines) + "\n")


def write_tokenizer(folder: Path, corpus: Path) -> Path:
    """Train a WordPiece vocabulary on the corpus, and save it where AutoTokenizer can load it."""
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train([str(corpus)], vocab_size=VOCABULARY, show_progress=False)
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 128, **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_atomically(folder / "tokenizer.json", tokenizer.to_str())
    return folder


def train(folder: Path, name: str, corpus: Path, steps: int, *words: str) -> dict[str, float]:
    """Train one model unless it is complete, and return its validation metrics.

    Args:
        folder: the output folder of the example.
        name: the model's folder in it.
        corpus: the text file.
        steps: number of optimizer steps.
        words: further flags of run_pretrain_distill.py.
    """
    out = folder / name
    record = out / RECORD
    if not record.exists() or json.loads(record.read_text())["status"] != "complete":
        resume = ["--resume_from_checkpoint"] if any(out.glob("checkpoint-*")) else []
        print(f"\n{name}: {steps} steps", flush=True)
        flags = [
            "--output_dir", str(out),
            "--corpus", str(corpus),
            "--corpus_dir", str(folder / "corpus"),
            "--max_steps", str(steps),
            "--tokens_per_batch", "4096",
            "--validation_fraction", "0.05",
            "--learning_rate", "1e-3",
            "--seed", "11",
            "--save_steps", "100",
            "--logging_steps", "100",
            "--report_to", "none",
        ]  # fmt: skip
        status = run_command(PRETRAIN, [*words, *resume, *flags])
        if status != DONE:
            sys.exit(status)
    metrics: dict[str, float] = json.loads(record.read_text())["validation"]
    return metrics


def main() -> None:
    """Train teacher, student and baseline, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--teacher_steps", type=int, default=450, help="the teacher's steps [450]")
    parser.add_argument("--student_steps", type=int, default=150, help="each student's steps [150]")
    options = parser.parse_args()
    folder: Path = options.folder
    tokenizer = folder / "tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
        write_tokenizer(tokenizer, write_text(folder))
    corpus = folder / "reference.txt"
    configs = {
        name: str(write_json(folder / f"{name}.json", config))
        for name, config in (("teacher", TEACHER), ("student", STUDENT))
    }
    from_scratch = ["--teacher", "none", "--student_init", "random", "--tokenizer", str(tokenizer)]
    steps = options.student_steps
    teacher = train(
        folder,
        "teacher",
        corpus,
        options.teacher_steps,
        *from_scratch,
        "--student",
        configs["teacher"],
    )
    distilled = train(folder, "student", corpus, steps, "--teacher", str(folder / "teacher"))
    baseline = train(folder, "alone", corpus, steps, *from_scratch, "--student", configs["student"])
    print("\nOne seed each, on Python's language reference; lower is better.\n")
    print("| model | steps | validation perplexity |\n|---|---|---|")
    for title, count, metrics in (
        ("teacher, 4 layers x 128", options.teacher_steps, teacher),
        ("student, 2 layers, distilled", steps, distilled),
        ("student, 2 layers, from the text alone", steps, baseline),
    ):
        print(f"| {title} | {count} | {metrics['eval_perplexity']:.1f} |")
    print(f"\nEverything is in {folder}; the student loads with from_pretrained.")


if __name__ == "__main__":
    main()
