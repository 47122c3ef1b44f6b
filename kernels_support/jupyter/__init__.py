"""Processes, sockets and what Jupyter can do. Knows nothing of prompts and imports nothing of holynb."""
