"""Record of trainings and screenings in MLflow, which is imported in this folder only."""
