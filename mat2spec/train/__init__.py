"""Training of a network: the epoch loop, its inputs, its result, and ensembles of finished trainings."""
