"""What the services' web applications share: frame, errors, health, and who may change something."""
