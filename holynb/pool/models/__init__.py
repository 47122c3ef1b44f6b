"""Models on disk: found, downloaded, checked, converted. Hands out nothing: two of its modules are commands, run with `python -m`."""
