"""What was promised in numbers, measured. Nothing here is a test: a time is looked at, never asserted."""
