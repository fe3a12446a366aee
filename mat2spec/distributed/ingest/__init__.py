"""Ingestion and substitution on Ray."""
