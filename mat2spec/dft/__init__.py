"""Spectra computed from first principles: engines that run in processes of their own."""
