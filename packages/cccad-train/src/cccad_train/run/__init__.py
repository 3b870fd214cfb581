"""Run an experiment: its stages, its folder, and who does them."""
