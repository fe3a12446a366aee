"""From crystals to spectra: the predictor, and the stages of one shard of a screening."""
