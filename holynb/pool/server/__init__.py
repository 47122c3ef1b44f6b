"""A pool's server process: HTTP, tokenizing, replicas. Imports no torch."""
