"""What one saga costs, from the rows of those that have ended and by watching a system at work."""
