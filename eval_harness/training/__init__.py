"""One run: fine-tune a model, evaluate it. All of the harness's torch."""
