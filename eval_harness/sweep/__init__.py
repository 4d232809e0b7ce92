"""Sweeps: plan, queue, schedule and execute the missing runs. No torch."""
