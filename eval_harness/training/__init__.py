"""One run: fine-tune a model and evaluate it. Only this wing and speed's bench import torch."""
