"""The same saga on other systems, each in an environment of its own under ``build/bench``.

The saga creates an order (local), verifies its consumer, creates a ticket, authorizes a card, approves the
ticket and approves the order (local); the four in the middle run in three participants. A card is refused
from an amount of 50 on; then the ticket and the order are rejected.
"""
