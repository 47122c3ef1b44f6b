"""Files of rows, and tables of other libraries → DataFrames whose values are what they say. Knows no prompt and no run."""

from holynb.files.filled import Filled
from holynb.files.reader import read, stream
from holynb.files.stored import StoredTable, pieces, taken, whole, window
from holynb.files.tables import Given, column_names, given, is_table, one_column, to_arrow

__all__ = [
    "Filled",
    "Given",
    "StoredTable",
    "column_names",
    "given",
    "is_table",
    "one_column",
    "pieces",
    "read",
    "stream",
    "taken",
    "to_arrow",
    "whole",
    "window",
]
