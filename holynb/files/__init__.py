"""Files of rows → DataFrames whose values are what the file says. Knows no prompt and no run."""

from holynb.files.reader import read

__all__ = ["read"]
