"""Questions as windows, logits as answers, answers as scores. No torch."""
