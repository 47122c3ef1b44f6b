"""Words of messages: numbers with their nouns, and what strangers wrote, made fit to be shown. Pure."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

__all__ = [
    "KEY_SHAPES",
    "address",
    "an",
    "clean",
    "composed",
    "counted",
    "is_plain_name",
    "is_writable",
    "kind_of",
    "lines",
    "message",
    "plain",
]

#: Keys of known providers, and a pool's tokens, anywhere in a text.
KEY_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}"
    r"|hs-[A-Za-z0-9_-]{20,}|hnb_[A-Za-z0-9_-]{20,}|nvapi-[A-Za-z0-9_-]{20,}|pplx-[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|A[KS]IA[A-Z0-9]{16}"
    r"|(?:ABSK|bedrock-api-key-)[A-Za-z0-9+/=_-]{20,})"
)
#: A part of a name between its underscores, dashes and dots: a word, a number, a word with a number at its end, or a few characters
#: mixed, such as K8S. An allow-list: a key of no known kind is none of these.
_NAME_PART = r"(?:[A-Z]{1,24}[0-9]{0,4}|(?:[A-Z]?[a-z]{2,}+|[A-Z]{2,}+){1,5}[0-9]{0,4}|[a-z][0-9]{0,4}|[0-9]{1,8}|[A-Za-z0-9]{1,5})"
_PLAIN_NAME = re.compile(rf"_{{0,2}}{_NAME_PART}(?:[_.-]{{1,2}}{_NAME_PART}){{0,11}}")
_LONGEST_NAME = 80
#: Abbreviations that are read as words.
_SPOKEN = ("FLAC", "HEIC", "NA", "RAW")
#: CSI (colours, cursor), OSC (titles, links) and the two-byte escapes.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: What turns text around: embeddings, overrides and isolates. Arabic and Hebrew are readable without them.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LINES = re.compile(r"\s*[\n\t\u2028\u2029]\s*")
#: A user and a password in an address; USER:PASSWORD is what a message says to put there.
_USER = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)(?!USER:PASSWORD@)[^\s/?#'\"<>]*@", re.IGNORECASE)
#: An address' query, and a fragment that holds a value; an anchor of a page stays.
_QUERY = re.compile(r"\b(https?://[^\s?#'\"<>]*)(?:\?[\w%&=+.~-][^\s'\"<>)]*|#[^\s'\"<>)]*=[^\s'\"<>)]*)", re.IGNORECASE)


def composed(name: object) -> str:
    """The name with its letters composed (NFC): what looks alike is one name, also where a Mac's files write it in parts."""
    return unicodedata.normalize("NFC", str(name))


def counted(n: int, noun: str) -> str:
    """`1 row`, `2,000 rows`. For nouns whose plural ends in s."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def an(noun: str) -> str:
    """`an int`, `a PDF`, `an SVG drawing`: the noun with its article, letters that are read one by one included."""
    spelled = noun[:1] in "AEFHILMNORSX" and len(noun) > 1 and noun[1:3].isupper() and not noun.startswith(_SPOKEN)
    return f"{'an' if noun[:1] in 'AEIOaeio' or spelled else 'a'} {noun}"


def kind_of(value: object) -> str:
    """What a setting's value is, instead of the value: somebody may have put a key there."""
    if isinstance(value, str):
        return "text" if value.strip() else "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    names = {int: "a number", float: "a number", list: "a list", dict: "a table"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a date or a time")


def is_writable(text: str) -> bool:
    """Whether UTF-8 has it: not half of a surrogate pair, which a JSON escape can make."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lines(text: str) -> list[str]:
    """The lines of a text, which end at \\n, \\r\\n and \\r, and nowhere else: U+2028, U+0085 and a form feed are part of one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def clean(text: str | None) -> str:
    """`text` without escape sequences and control characters; line ends become \\n, lone surrogates U+FFFD."""
    if not text:
        return ""
    plain = _CONTROL.sub("", _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(text: str) -> str:
    """A name or a message of strangers: cleaned, and without characters that turn text around."""
    return _BIDI.sub("", clean(text))


def message(text: str) -> str:
    """A message, which may quote a server, a file's name or a setting, on one line: cleaned, and without anything that may be a key.

    That is what looks like one, and an address' user, password and query.
    """
    line = _LINES.sub(" ", plain(text))
    if "://" in line:
        line = _QUERY.sub(r"\1", _USER.sub(r"\1", line))
    return KEY_SHAPES.sub("***", line)


def is_plain_name(text: str) -> bool:
    """Whether `text` reads as a name of words and numbers, and so may be shown where a key may have been put in a name's place."""
    return len(text) <= _LONGEST_NAME and _PLAIN_NAME.fullmatch(text) is not None and KEY_SHAPES.search(text) is None


def address(text: str) -> str:
    """An address without user, password, query and fragment; "" for a text that is none, and may be anything."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in text.strip()):
        return ""
    return message(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl())
