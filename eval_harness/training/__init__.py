"""One run: fine-tune a model and evaluate it. Only this wing and speed's benches import torch."""
