"""Networks from crystals to spectra and band gaps, and the checkpoints that store them."""
