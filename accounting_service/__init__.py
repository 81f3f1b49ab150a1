"""Keeps what is authorized on cards, and what customers paid."""
