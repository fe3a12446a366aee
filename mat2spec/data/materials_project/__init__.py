"""Download of structures and densities of states from the Materials Project."""
