"""Attachments that a run cannot send: refused before anything is sent, or said where single rows end with them. Sends nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from holynb import attachments
from holynb.attached import Attachment
from holynb.config import Options, models
from holynb.engines import parts
from holynb.errors import BadOption
from holynb.types import Endpoint, Message, Outcome, Request
from holynb.words import counted

__all__ = ["broken", "check", "notes", "renewed", "restored", "wrong_line"]

#: What a group of kinds is called; singular words of a provider's documentation.
_NAMES = {"image": "pictures", "pdf": "PDFs", "audio": "sounds"}


def check(requests: Sequence[Request | None], endpoints: Sequence[Endpoint], options: Options) -> None:
    """Raises BadOption: a route that takes none of these, a model that sees nothing, Pillow that is not there, options without a column."""
    attached = [a for r in requests if r is not None for a in r.attachments]
    if not attached:
        if (options.attach_max is not None or options.attach_urls) and not options.attach:
            name = "--attach-max" if options.attach_max is not None else "--attach-urls"
            raise BadOption(f"{name} is about attachments, and this cell has none: add --attach COLUMN, or {{{{ attach(COLUMN) }}}}.")
        return
    if options.embed:
        raise BadOption("--embed makes vectors of texts, and an attachment is none. Leave --embed or the attachments out.")
    if options.chunk is not None:
        raise BadOption("--chunk cuts long texts, and an attachment cannot be cut. Leave --chunk or the attachments out.")
    if options.attach_max is not None and not attachments.installed():
        raise BadOption("--attach-max scales pictures with Pillow, which is not installed: pip install pillow")
    groups = dict.fromkeys(a.group for a in attached if a.problem is None and a.group)
    for endpoint in endpoints:
        _check_route(endpoint, groups)


def _check_route(endpoint: Endpoint, groups: Mapping[str, None]) -> None:
    route, takes = endpoint.route, parts.takes(endpoint.wire)
    if not takes:
        why = "the models of a pool read text alone" if endpoint.wire == "pool" else "its wire takes text alone"
        raise BadOption(f"{route} cannot be sent attachments: {why}. Choose a hosted route that takes pictures, or leave --attach out.")
    known = models.find(route.provider, route.model)
    if known is not None and known.images is False and "image" in groups:
        raise BadOption(f"{route} takes no pictures ({known.reading.source}). Choose a model that does: %infer models shows which.")
    taken = {kind.partition("/")[0] if kind != "application/pdf" else "pdf" for kind in takes}
    if groups and not taken & groups.keys():
        names = " and ".join(_NAMES[g] for g in groups)
        raise BadOption(f"{route} takes {_listed(taken)}, not {names}. Choose another route, or another column.")


def _listed(groups: set[str]) -> str:
    return " and ".join(name for group, name in _NAMES.items() if group in groups)


def wrong_line(requests: Sequence[Request | None]) -> str:
    """What to say before a run of the rows that end with what is wrong with their attachment; empty where there are none."""
    wrong = [(r.row, a) for r in requests if r is not None and (a := _first_wrong(r)) is not None]
    if not wrong:
        return ""
    row, first = wrong[0]
    more = f", and {counted(len(wrong) - 1, 'other row')}," if len(wrong) > 1 else ""
    return f"Row {row}{more} {'ends' if len(wrong) == 1 else 'end'} without being sent: {first.name} {first.problem}."


def notes(requests: Sequence[Request | None], options: Options, answered: Collection[int] = ()) -> list[str]:
    """What to say of rows that go without an attachment. `answered`: rows that are not sent."""
    sent = [r for r in requests if r is not None and r.row not in answered]
    lines = []
    bare = sum(not r.attachments for r in sent)
    if bare and (options.attach or bare < len(sent)):
        have, go = ("has", "goes") if bare == 1 else ("have", "go")
        lines.append(f"{counted(bare, 'row')} of {len(sent):,} {have} no attachment, and {go} without.")
    return lines


def broken(request: Request) -> Outcome | None:
    """How a row ends whose attachment cannot be sent; None for any other."""
    wrong = _first_wrong(request)
    return None if wrong is None else Outcome("error", error_type="bad_request", error=f"{wrong.name} {wrong.problem}")


def restored(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages of the run log with their attachments' sources, where a file still is what it was, or an address is known."""
    return tuple(replace(m, attachments=tuple(map(attachments.known, m.attachments))) if m.attachments else m for m in messages)


def renewed(requests: Sequence[Request | None], kept: Collection[int]) -> list[Request | None]:
    """The requests, files of the rows that are not kept looked at again: what was missing may be there now."""

    def again(request: Request) -> Request:
        turns = (replace(m, attachments=tuple(map(attachments.renewed, m.attachments))) if m.attachments else m for m in request.messages)
        return replace(request, messages=tuple(turns))

    return [again(r) if r is not None and r.attachments and i not in kept else r for i, r in enumerate(requests)]


def _first_wrong(request: Request) -> Attachment | None:
    attached = request.attachments
    return next((a for a in attached if a.problem is not None), None) if attached else None
