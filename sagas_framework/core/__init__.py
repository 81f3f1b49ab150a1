"""The pure core: values in, decisions out. No clock, no I/O, no randomness."""
