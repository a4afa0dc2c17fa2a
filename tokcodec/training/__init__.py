"""The trainer of the restorer: clips, the loop's results on them, losses and steps, on one process or several."""
