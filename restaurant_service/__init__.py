"""Keeps the kitchen's tickets."""
