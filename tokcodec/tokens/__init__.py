"""Tokens for others: as arrays (arrays.py), WebDataset shards (shards.py) and a PyTorch data set (dataset.py)."""
