"""SQL queries on a run."""
