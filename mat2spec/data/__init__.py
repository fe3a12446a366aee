"""Structures and labels: the materials table, files, and the data that ship."""
