"""Ships orders, unless it is in maintenance."""
