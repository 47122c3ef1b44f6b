"""Models on disk: found, downloaded, checked, converted."""
