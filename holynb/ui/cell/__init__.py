"""A cell that runs: rewritten, waited for, completed, shown."""
