"""Verification by DFT: sampling of a shortlist, computed spectra, and labels from them."""
