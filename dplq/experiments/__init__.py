"""Experiments made of runs: what each protocol runs, and with which configs."""
