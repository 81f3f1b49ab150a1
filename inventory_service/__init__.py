"""Keeps the stock: what is there of each item, and what is set aside for orders."""
