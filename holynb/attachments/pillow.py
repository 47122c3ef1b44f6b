"""What needs Pillow: pictures scaled down, thumbnails, its own images as PNG. It is imported when it is needed."""

from __future__ import annotations

import hashlib
import io
from typing import Any

__all__ = ["MAX_PIXELS", "as_png", "fingerprint", "installed", "is_image", "packed", "scaled", "thumbnail"]

#: Pixels that are decoded: a small file may claim billions of them.
MAX_PIXELS = 100_000_000
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
    (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")).save(out, "PNG")
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
        upright = _upright(image)
        upright.thumbnail((longest, longest))
        return _written(upright, _SAME.get(kind, "PNG"))


def as_png(data: bytes) -> bytes:
    """A picture as PNG. Raises ValueError."""
    with _opened(data) as image:
        return _written(_upright(image), "PNG")[0]


def thumbnail(data: bytes, longest: int, max_bytes: int) -> bytes | None:
    """A small JPEG of a picture, of at most so many bytes; None where none is made of it."""
    try:
        with _opened(data) as image:
            image.draft("RGB", (longest, longest))
            small = _upright(image)
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

    try:
        image = Image.open(io.BytesIO(data))
    except Exception as exc:  # each of Pillow's readers has errors of its own
        raise ValueError(f"cannot be read as a picture ({type(exc).__name__})") from exc
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise ValueError(f"has {image.size[0] * image.size[1]:,} pixels; {MAX_PIXELS:,} are decoded at most")
    return image


def _upright(image: Any) -> Any:
    """The image as a camera meant it: its turn is a note beside the pixels, which scaling would lose. Raises ValueError."""
    from PIL import ImageOps

    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as exc:
        raise ValueError(f"is broken ({type(exc).__name__})") from exc


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
        (image if image.mode in ("L", "LA", "RGB", "RGBA", "P") else image.convert("RGB")).save(out, form)
    return out.getvalue(), f"image/{form.lower()}"
