"""SQuAD: questions to windows of tokens, logits to answers, answers to scores. No torch."""
