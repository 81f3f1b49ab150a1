"""How messages travel: their form on the wire, and the edges to brokers."""
