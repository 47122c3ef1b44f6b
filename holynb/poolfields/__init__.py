"""The fields of a request to a pool's API, as data: the server and a cell's `-p` read the same table."""

from holynb.poolfields.checks import FieldError, is_token_id
from holynb.poolfields.embeddings import check_embedding, check_embedding_cell
from holynb.poolfields.table import cell_fields, check, check_cell

__all__ = ["FieldError", "cell_fields", "check", "check_cell", "check_embedding", "check_embedding_cell", "is_token_id"]
