"""What is wrong with an installation before it costs an order: settings, broker, databases, results."""
