"""The page over a run: table, spectra, structures and export, in a browser."""
