"""Readers of the tasks' data: from GLUE's TSVs, SQuAD's JSON, tables or the Hub. No torch."""
