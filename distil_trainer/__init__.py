"""Making students: distils transformer language models, while they pre-train and on a task."""
