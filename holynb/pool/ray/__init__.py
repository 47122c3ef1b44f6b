"""A pool on Ray: Ray places and restarts, our server and our ranks are what it runs. Nobody imports it; a client starts its `__main__`."""
