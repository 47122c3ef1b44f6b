"""A pool behind Ray Serve: Serve starts, replaces and scales its replicas, and our application answers in each."""
