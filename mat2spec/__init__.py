"""Predict whole spectra of crystals and screen structures by them."""
