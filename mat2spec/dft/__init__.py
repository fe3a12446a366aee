"""Engines that compute spectra of crystals from first principles, or with a model of their forces."""
