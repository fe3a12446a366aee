"""Training on Ray Train, one at a time or a whole benchmark table."""
