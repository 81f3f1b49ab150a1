"""Keeps what is authorized on cards."""
