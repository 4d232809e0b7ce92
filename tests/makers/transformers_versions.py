"""What differs between the versions of transformers that are supported."""

NEWER = frozenset({"activation_checkpointing", "activation_checkpointing_kwargs"})
"""Fields of TrainingArguments that older versions lack, 5.17 and 5.19 among them."""
