"""The pool: runs only in processes of its own, reached through a socket or `python -m`. Nobody imports it."""
