"""What a run is: a model, a task, a seed, settings, and the key they make. No torch."""
