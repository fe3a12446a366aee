"""Scores of a checkpoint on labelled crystals, error tables, figures and paired comparisons."""
