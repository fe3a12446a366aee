"""Screening on Ray: the scheduler, its workers and their MLflow record."""
