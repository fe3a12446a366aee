"""Scores of a checkpoint on labeled crystals, error tables, plots and paired comparisons."""
