"""Processes, sockets and the capabilities of a Jupyter front end. Independent of prompts; imports nothing of holynb."""
