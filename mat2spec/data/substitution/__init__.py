"""Candidate structures by ionic substitution."""
