"""DFT calculations as Ray tasks."""
