"""Screening on Ray Data: the job, its runner and its MLflow record."""
