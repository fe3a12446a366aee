"""Structures from files and tables to a materials table."""
