"""Knows whom the platform delivers to."""
