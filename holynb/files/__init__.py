"""Files of rows, and tables of other libraries → DataFrames whose values are what they say. Knows no prompt and no run."""

from holynb.files.reader import read
from holynb.files.tables import Given, column_names, given, is_table, one_column, to_arrow

__all__ = ["Given", "column_names", "given", "is_table", "one_column", "read", "to_arrow"]
