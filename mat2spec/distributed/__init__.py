"""The distribution: the only place that knows Ray."""
