"""Finished calculations of users: which files hold a density of states, their structures, and their spectra."""
