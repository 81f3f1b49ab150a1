"""The contracts: what each service can be asked, what it answers, and why it may refuse."""
