"""What the services of the order platform share: settings, contracts, and how all of them are run."""
