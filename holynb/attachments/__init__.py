"""What goes along with a prompt: pictures, PDFs and sounds out of a column's cells. Knows no prompt, no wire and no network."""

from holynb.attachments.cells import attachments_of, known, renewed
from holynb.attachments.content import Loaded, loaded, weight
from holynb.attachments.pillow import installed
from holynb.attachments.sources import MAX_BYTES, Url
from holynb.attachments.thumbnails import described, ready, thumbnail
from holynb.attachments.tokens import tokens

__all__ = [
    "MAX_BYTES",
    "Loaded",
    "Url",
    "attachments_of",
    "described",
    "installed",
    "known",
    "loaded",
    "ready",
    "renewed",
    "thumbnail",
    "tokens",
    "weight",
]
