"""Keeps what customers were told, and shows it."""
