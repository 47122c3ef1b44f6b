"""What needs Pillow: pictures scaled down, thumbnails, its own images as PNG. It is imported when it is needed."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from typing import Any

from holynb.attachments import kinds, measures

__all__ = ["MAX_PIXELS", "as_png", "fingerprint", "installed", "is_image", "packed", "scaled", "thumbnail"]

#: Pixels that are decoded: a small file may claim billions of them. Pillow warns of more than 89,478,485.
MAX_PIXELS = 89_000_000
#: What Pillow is asked to read: its readers of other formats see no stranger's bytes.
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "HEIF")
#: Kinds that are written as they came; others become PNG.
_SAME = {"image/jpeg": "JPEG", "image/webp": "WEBP"}


def installed() -> bool:
    """Whether Pillow can be imported."""
    from importlib.util import find_spec

    return find_spec("PIL") is not None


def is_image(value: Any) -> bool:
    """Whether this is an image of Pillow; does not import it."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def packed(image: Any) -> bytes:
    """An image of Pillow as PNG."""
    out = io.BytesIO()
    (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else _plain(image)).save(out, "PNG")
    return out.getvalue()


def fingerprint(image: Any) -> str:
    """SHA-256 of the pixels."""
    digest = hashlib.sha256(repr((image.mode, image.size)).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def scaled(data: bytes, kind: str, longest: int) -> tuple[bytes, str]:
    """A picture whose longest side is at most so many pixels, and its kind; as it is where it is small enough. Raises ValueError."""
    with _opened(data) as image:
        if max(image.size) <= longest:
            return data, kind
        image.draft("RGB", (longest, longest))  # a JPEG is decoded at a smaller size from the start
        decoded = _decoded(image)
        decoded.thumbnail((longest, longest))
        return _written(decoded, _SAME.get(kind, "PNG"))


def as_png(data: bytes) -> bytes:
    """A picture as PNG. Raises ValueError."""
    with _opened(data) as image:
        return _written(_decoded(image), "PNG")[0]


def thumbnail(data: bytes, longest: int, max_bytes: int) -> bytes | None:
    """A small JPEG of a picture, of at most so many bytes; None where none is made of it."""
    try:
        with _opened(data) as image:
            image.draft("RGB", (longest, longest))
            small = _decoded(image)
            small.thumbnail((longest, longest))
            small = _flat(small)
            for quality in (75, 50, 25):
                out = io.BytesIO()
                small.save(out, "JPEG", quality=quality, optimize=True)
                if out.tell() <= max_bytes:
                    return out.getvalue()
    except ValueError:
        pass
    return None


def _opened(data: bytes) -> Any:
    """The image of these bytes, not yet decoded. Raises ValueError."""
    from PIL import Image

    kind = kinds.kind_of(data[: kinds.HEAD_BYTES])
    if kind == "image/heic" and "HEIF" not in Image.registered_extensions().values():
        raise ValueError("is a HEIC picture, which Pillow reads with pillow-heif alone: install that, or save it as JPEG")
    _check_size(measures.pixels(kind, io.BytesIO(data)) if kind is not None else None)
    registered = [form for form in _FORMATS if form in Image.registered_extensions().values()]
    try:
        image = Image.open(io.BytesIO(data), formats=registered)
    except Exception as exc:  # each of Pillow's readers has errors of its own
        raise ValueError(f"cannot be read as a picture ({type(exc).__name__})") from exc
    _check_size(image.size)
    return image


def _check_size(size: tuple[int, int] | None) -> None:
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"has {size[0] * size[1]:,} pixels; {MAX_PIXELS:,} are decoded at most")


def _decoded(image: Any) -> Any:
    """The pixels as a camera meant them: its turn is a note beside them, which scaling would lose. Raises ValueError."""
    from PIL import ImageOps

    try:
        image.load()
    except Exception as exc:
        raise ValueError(f"is broken ({type(exc).__name__})") from exc
    with suppress(Exception):  # a note that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    return _plain(image)


def _plain(image: Any) -> Any:
    """The image in eight bits a channel and without a palette: others are scaled badly, and cut off above 255."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        values = image.convert("F" if image.mode == "F" else "I")
        most = values.getextrema()[1]
        factor = 255.0 if image.mode == "F" and most <= 1 else 1.0 if most <= 255 else 1 / 256 if most <= 65_535 else 255 / most
        return values.point(lambda value: value * factor).convert("L")
    if image.mode in ("PA", "La", "RGBa"):
        return image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGBA" if "transparency" in image.info else "RGB")


def _flat(image: Any) -> Any:
    """The image in RGB, what is transparent on white."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def _written(image: Any, form: str) -> tuple[bytes, str]:
    out = io.BytesIO()
    if form == "JPEG":
        _flat(image).save(out, form, quality=90)
    else:
        image.save(out, form)
    return out.getvalue(), f"image/{form.lower()}"
