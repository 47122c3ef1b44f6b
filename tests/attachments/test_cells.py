"""What a cell of a column is as an attachment: its kind by content, its hash, its measures; and what is wrong with it."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pictures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import GIF, JPEG, MP3, OTHERS, PDF, PNG, WAV, WEBP, attached

from holynb.attached import Attachment, from_json
from holynb.attachments import attachments_of, cells, content, kinds, measures, pillow, png, sources, thumbnails


@pytest.mark.parametrize(
    ("data", "kind", "measure"),
    [
        (PNG, "image/png", (40, 30)),
        (JPEG, "image/jpeg", (40, 30)),
        (GIF, "image/gif", (40, 30)),
        (WEBP, "image/webp", (40, 30)),
        (PDF, "application/pdf", 3),
        (pictures.pdf(7, packed=True), "application/pdf", 7),
        (b"\n" * 90 + PDF, "application/pdf", 3),
        (WAV, "audio/wav", 2.0),
        (MP3, "audio/mpeg", None),
        (b"ID3\x04" + bytes(60), "audio/mpeg", None),
        (b"fLaC" + bytes(60), "audio/flac", None),
        (b"OggS" + bytes(60), "audio/ogg", None),
        (b"\xff\xf1\x50\x80" + bytes(60), "audio/aac", None),
        (b"\0\0\0\x20ftypM4A " + bytes(60), "audio/mp4", None),
        (b"\0\0\0\x20ftypheic" + bytes(60), "image/heic", None),
    ],
)
def test_a_kind_is_told_by_content_and_not_by_name(data: bytes, kind: str, measure: Any, tmp_path: Path):
    path = tmp_path / "name.txt"
    path.write_bytes(data)
    for one in (attached(data), attached(str(path)), attached(path), attached({"bytes": data, "path": "x.bin"}), attached(bytearray(data))):
        assert (one.kind, one.problem, one.size) == (kind, None, len(data))
        assert measure in (one.pixels, one.pages, round(one.seconds, 1) if one.seconds else None)
        assert one.digest == attached(data).digest


@pytest.mark.parametrize("data", OTHERS, ids=OTHERS.values())
def test_what_cannot_be_sent_is_called_by_its_name(data: bytes):
    assert OTHERS[data] in (attached(data).problem or "")


@pytest.mark.parametrize(
    ("data", "locked"),
    [
        (pictures.pdf(trailer=b"/Encrypt 5 0 R"), True),
        (pictures.pdf(trailer=b"/Encrypt<</Filter/Standard>>"), True),
        (b"%PDF-1.7\n5 0 obj<</Type/XRef/Encrypt 4 0 R>>stream\n" + bytes(100_000) + b"\nstartxref\n9\n%%EOF", True),
        (PDF, False),
        (pictures.pdf(trailer=b"/EncryptMetadata false"), False),
    ],
)
def test_a_pdf_with_a_password_is_refused(data: bytes, locked: bool):
    assert ("password" in (attached(data).problem or "")) is locked


def test_what_a_notebook_computes_is_a_picture(tmp_path: Path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    for value in (pixels, image, pixels / 255, pixels[:, :, 0], pixels[:, :, 0] > 99, pixels.astype(np.int64)):
        one = attached(value)
        assert (one.kind, one.pixels, one.problem) == ("image/png", (40, 30), None)
        with Image.open(io.BytesIO(one.source.read())) as read:
            assert read.size == (40, 30)
    with Image.open(io.BytesIO(attached(pixels).source.read())) as read:
        assert (np.asarray(read) == pixels).all()
    assert attached(pixels).digest == attached(pixels.copy()).digest != attached(pixels[::-1]).digest
    assert attached(image).digest == attached(Image.fromarray(pixels)).digest
    for value, words in ((pixels * 2.5, "from 0 to 1"), (pixels[0, 0], "of shape"), (np.zeros((2, 2, 7), np.uint8), "of shape")):
        assert words in (attached(value).problem or "")


def test_a_figure_and_its_axes_are_drawn_at_once():
    class Figure:
        drawn = 0

        def savefig(self, out: Any, format: str) -> None:
            self.drawn += 1
            out.write(PNG)

    class Axes:
        figure = Figure()

    assert attached(Axes()).digest == attached(Figure()).digest == attached(PNG).digest
    assert Axes.figure.drawn == 1


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, "", []])
def test_a_missing_value_is_no_attachment(value: Any):
    assert attachments_of(value, "photo") == []


def test_a_list_is_several_each_with_what_is_wrong_with_it(tmp_path: Path):
    paths = pictures.written(tmp_path, a_png=PNG)
    found = attachments_of([paths["a_png"], None, tmp_path / "b.png", PDF, 3, tmp_path], "photo")
    assert [a.kind for a in found] == ["image/png", "", "application/pdf", "", ""]
    assert [a.problem and a.problem[:14] for a in found] == [None, "cannot be read", None, "is an int; an ", "is a folder"]
    assert len(attachments_of(np.array([paths["a_png"], paths["a_png"]], object), "photo")) == 2
    assert "at most" in str(attachments_of([PNG] * 101, "photo")[0].problem)


def test_arrow_and_hugging_face_columns(tmp_path: Path):
    import datasets
    import pyarrow as pa

    from holynb import files
    from holynb.results import frame

    cells_ = [{"bytes": PNG, "path": None}, {"bytes": None, "path": pictures.written(tmp_path, a_png=PNG)["a_png"]}, None]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    table = files.given(datasets.Dataset.from_dict({"image": cells_}, features=features))
    assert table is not None
    for rows in (frame.records(table.frame()), frame.records(pa.table({"image": cells_}).to_pandas(types_mapper=pd.ArrowDtype))):
        found = [attachments_of(row["image"], "image") for row in rows]
        assert [[a.digest for a in of] for of in found] == [[attached(PNG).digest]] * 2 + [[]]
    assert "is a struct of x" in str(attached({"x": 1}).problem)


def test_a_relative_path_is_looked_for_beside_the_file_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    assert attachments_of("a.png", "photo", folder="there")[0].problem is None
    assert "no such file" in str(attached("a.png").problem)
    assert attached("file://" + str(tmp_path / "there" / "a.png")).problem is None
    assert attached("data:image/png;base64," + base64.b64encode(PNG).decode()).digest == attached(PNG).digest


def test_a_file_is_looked_at_again_only_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    first = attached(path)
    monkeypatch.setattr(cells, "_measured", lambda file: pytest.fail("it was read again"))
    assert attached(path) == first


def test_what_names_no_file_ends_its_row_alone(tmp_path: Path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    says = {
        "~nobody-of-that-name/a.png": "is in the home of a user whom this machine does not have",
        str(tmp_path / "one"): "cannot be read: too many levels of symbolic links",
        "C:\\Users\\me\\a.png": "cannot be read: no such file",
        "a\0b.png": "cannot be read: embedded null byte",
        "x" * 5000: "cannot be read: file name too long",
        "/dev/zero": "is no plain file",
    }
    for named, words in says.items():
        assert (attached(named).problem or "").startswith(words), named


def test_a_home_and_an_address_of_a_file_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a cat.png"
    path.write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for named in ("~/a cat.png", Path("~/a cat.png"), path.as_uri(), path.as_uri().replace("file://", "file://localhost")):
        assert attached(named).digest == attached(PNG).digest


def test_a_picture_that_pillow_has_no_reader_for_is_called_by_its_name():
    heic = attached(b"\0\0\0\x20ftypheic" + bytes(60))
    words = "is a HEIC picture, which Pillow reads with pillow-heif alone: install that, or save it as JPEG"
    for longest, takes in ((None, {"image/png": 10**6}), (100, {"image/heic": 10**6})):
        with pytest.raises(ValueError, match=words):
            content.loaded(replace(heic, longest=longest), takes)
    with pytest.raises(ValueError, match="is an MP3 sound, which this provider does not take"):
        content.loaded(attached(MP3), {"image/png": 10**6})


def test_images_of_every_mode_and_the_first_of_several_are_sent():
    from PIL import Image

    orange = Image.new("RGB", (6, 4), (255, 153, 0))
    modes = ("1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F", "I;16")
    for mode in modes:
        image = Image.new(mode, (6, 4)) if mode == "I;16" else orange.convert(mode)
        for longest in (None, 3):
            sent = content.loaded(attached(image, longest=longest), {"image/png": 10**6})
            with Image.open(io.BytesIO(b"".join(sent.pieces))) as read:
                assert (read.format, read.size) == ("PNG", (6, 4) if longest is None else (3, 2)), mode
                near = np.abs(np.asarray(read.convert("RGB")).astype(int)[0, 0] - (255, 153, 0)).max() < 8
            assert near or mode in ("1", "L", "LA", "La", "I", "F", "I;16"), mode
    for form in ("GIF", "WEBP"):
        out = io.BytesIO()
        orange.save(out, form, save_all=True, append_images=[Image.new("RGB", (6, 4), "blue")], lossless=True)
        moving = attached(out.getvalue())
        whole = content.loaded(moving, {moving.kind: 10**6})
        assert b"".join(whole.pieces) == out.getvalue(), "as it is, where its kind is taken"
        first = content.loaded(moving, {"image/png": 10**6} | ({"image/gif": 10**6, kinds.STILL_GIF: 0} if form == "GIF" else {}))
        assert first.kind == "image/png"
        with Image.open(io.BytesIO(b"".join(first.pieces))) as read:
            assert np.abs(np.asarray(read.convert("RGB")).astype(int)[0, 0] - (255, 153, 0)).max() < 8


def test_a_gif_of_one_picture_is_told_from_an_animated_one(tmp_path: Path):
    from PIL import Image

    frames = [Image.effect_noise((40, 30), 50 * i + 50).convert("P") for i in range(2)]
    for n, colours in ((1, 256), (2, 256), (2, 4)):
        out = io.BytesIO()
        few = [frame.quantize(colours) for frame in frames]
        few[0].save(out, "GIF", save_all=True, append_images=few[1:n])
        assert measures.is_animated(out.getvalue()) is (n > 1)
        assert not measures.is_animated(out.getvalue()[:20])
    path = Path(pictures.written(tmp_path, still_gif=GIF)["still_gif"])
    still = content.loaded(attached(path), {"image/gif": 10**6, kinds.STILL_GIF: 0})
    assert (still.kind, b"".join(still.pieces)) == ("image/gif", GIF)


def test_a_pipe_does_not_hold_the_cell(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert attached(tmp_path / "pipe").problem == "is no plain file"


def test_the_log_keeps_what_is_known_and_no_bytes():
    one = attached(PNG, at=3, longest=99)
    kept = from_json(json.loads(json.dumps(one.to_json())))
    assert kept == one
    assert kept.source is None
    assert "bytes" not in Attachment.__dataclass_fields__


@settings(max_examples=80)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBP", b"%PDF-", b"RIFF....WAVEfmt "]),
)
def test_no_bytes_break_the_reader(data: bytes, mark: bytes):
    one = attached(mark + data)
    assert (one.problem is None) is (one.kind in kinds.SENT)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]))
def test_png_is_read_back_as_it_was(width: int, height: int, channels: int):
    from PIL import Image

    array = np.random.default_rng(width).integers(0, 255, (height, width, channels)).astype(np.uint8)
    with Image.open(io.BytesIO(png.encode(array))) as image:
        assert (np.asarray(image).reshape(array.shape) == array).all()


def test_sizes_of_large_and_broken_headers():
    assert measures.pixels("image/png", io.BytesIO(PNG[:20])) is None
    assert measures.pixels("image/jpeg", io.BytesIO(b"\xff\xd8\xff\xe0" + struct.pack(">H", 60000) + bytes(60000 - 2) + JPEG[8:])) == (
        40,
        30,
    )
    assert sources.MAX_BYTES == 50_000_000


def test_a_pdf_made_to_take_long_does_not():
    for repeated in (b"/Type/Pages ", b"/Count 1 ", b"/Type/ObjStm "):
        begun = time.process_time()
        assert measures.pages(b"%PDF-1.4\n" + repeated * 100_000) is None
        assert time.process_time() - begun < 1.5
    stream = zlib.compress(b"<< /Type /Catalog >>")
    packed = b"".join(b"<< /Type /ObjStm >>\nstream\n" + stream + b"\nendstream\n" + bytes(10_000) for _ in range(1000))
    begun = time.process_time()
    assert measures.pages(packed + b"<< /Kids [] /Count 12 /Type /Pages >>") == 12
    assert time.process_time() - begun < 1.5


def test_a_picture_that_claims_more_pixels_than_are_decoded_is_told_by_their_number():
    claims = PNG[:16] + struct.pack(">II", 50_000, 50_000) + PNG[24:]
    with pytest.raises(ValueError, match=r"has 2,500,000,000 pixels; 89,000,000 are decoded at most"):
        pillow.scaled(claims, "image/png", 512)
    large = attached(claims[:16] + struct.pack(">II", 9700, 9700) + claims[24:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's, of a decompression bomb
        assert thumbnails.thumbnail(large) == ""


def test_a_few_bytes_that_claim_many_pixels_are_not_put_into_a_page_as_they_are():
    bomb = attached(GIF[:6] + struct.pack("<HH", 9999, 9999) + GIF[10:])
    assert bomb.pixels == (9999, 9999)
    assert thumbnails.thumbnail(bomb) == ""
    assert thumbnails.thumbnail(attached(GIF)).startswith("data:image/gif")


def test_pictures_of_sixteen_bits_and_palettes_keep_their_shades():
    from PIL import Image

    ramp = np.linspace(0, 65_535, 400 * 300).reshape(300, 400).astype(np.uint16)

    def mean(data: bytes) -> float:
        with Image.open(io.BytesIO(data)) as image:
            return float(np.asarray(image.convert("L")).mean())

    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    assert mean(pillow.scaled(out.getvalue(), "image/png", 100)[0]) == pytest.approx(127, abs=2)
    assert mean(pillow.as_png(out.getvalue())) == pytest.approx(127, abs=2)
    small = pillow.thumbnail(out.getvalue(), 96, 2900)
    assert small is not None
    assert mean(small) == pytest.approx(127, abs=2)
    assert mean(pillow.packed(Image.fromarray(ramp.astype(np.int32)))) == pytest.approx(127, abs=2)
    assert mean(pillow.packed(Image.fromarray(ramp.astype(np.float32) / 65_535))) == pytest.approx(127, abs=2)
    stripes = Image.fromarray((np.arange(400 * 300).reshape(300, 400) % 2 * 255).astype(np.uint8)).convert("P")
    out = io.BytesIO()
    stripes.save(out, "PNG")
    with Image.open(io.BytesIO(pillow.scaled(out.getvalue(), "image/png", 100)[0])) as image:
        assert 60 < np.asarray(image.convert("L"))[50, 50] < 200, "scaled by the mean of its shades, not by leaving out"


def test_a_note_of_the_camera_that_is_broken_breaks_no_picture():
    from PIL import Image

    out, note = io.BytesIO(), Image.Exif()
    note[0x112] = 6
    Image.new("RGB", (80, 40)).save(out, "JPEG", exif=note)
    with Image.open(io.BytesIO(pillow.scaled(out.getvalue(), "image/jpeg", 20)[0])) as image:
        assert image.size == (10, 20)
    out = io.BytesIO()
    Image.new("RGB", (80, 40)).save(out, "JPEG", exif=b"Exif\0\0garbage!")
    with warnings.catch_warnings(), Image.open(io.BytesIO(pillow.scaled(out.getvalue(), "image/jpeg", 20)[0])) as image:
        assert image.size == (20, 10)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file://server/share/cat.png", "is a file of server, another machine: give the path under which this one reaches it"),
        ("http://[::1", "is no address that can be asked"),
        ("https://example.com/" + "a" * 10_000, "is an address of 10,020 characters; 8,192 are asked for at most"),
    ],
)
def test_an_address_that_names_nothing_here_is_refused(address: str, words: str):
    assert attached(address).problem == words
