"""Where rows are kept: the edges that the shell works against, and their adapters."""
