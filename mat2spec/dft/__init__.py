"""Engines that compute spectra of crystals from first principles, or from modeled forces."""
