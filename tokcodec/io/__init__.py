"""Files, standard streams, locks and names, for every command: no video, no tokens."""
