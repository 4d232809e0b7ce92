"""Evaluation: fine-tunes models on benchmarks over several seeds and tabulates the medians.

From Python: `eval_harness.api` (`evaluate`, `load_results`, `tables`, `compare`), and
`eval_harness.metrics`, our metrics as modules of the library `evaluate`. From a shell:
`run_glue.py`, `run_squad_distill.py` and `python -m eval_harness`.
"""
