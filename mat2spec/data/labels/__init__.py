"""Labeled crystals: tables of spectra, splits, folds and subsets."""
