"""The prompts of many rows as bytes in a spool, read again when a row is sent or shown. Beside lists, what `plan.Rows` may hold."""

from __future__ import annotations

import marshal
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import TypeVar, overload

from holynb import identity
from holynb.spool import MANY, Spool
from holynb.types import Message, Prompt, Sampling

__all__ = ["PromptSpool", "PromptTexts", "Repeated", "empties", "gathered", "texts"]

T = TypeVar("T")

_message = attrgetter(*(f.name for f in fields(Message)))


class _Lazy(Sequence[T]):
    """A sequence whose items are made when they are asked for."""

    @abstractmethod
    def item(self, i: int) -> T:
        """The item at a place that is there."""

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        if isinstance(i, slice):
            return [self.item(k) for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self.item(i % len(self))


class PromptSpool(_Lazy[Prompt]):
    """Prompts in order. Filled by whoever makes the plan, then only read. `bounds`: the first and the last text in order of characters."""

    def __init__(self, folder: Path | None = None) -> None:
        self._spool = Spool(folder)
        self._places = array("Q")
        self._samplings: list[Sampling] = [Sampling()]
        self._numbers: dict[str, int] = {repr(Sampling()): 0}
        self._sampling = array("I")
        self._last: tuple[int, tuple[tuple[Message, ...], str | None]] = (-1, ((), None))
        self._objects: dict[int, tuple[tuple[Message, ...], str | None]] = {}
        self.bounds = ("", "")
        self.empties = bytearray()
        """By row: whether it asks nothing."""
        self.shapes = array("I")
        """By row: the same number for those whose turns have the same roles, and attachments or none."""
        self._shapes: dict[tuple[bool, tuple[str, ...]], int] = {}

    def append(self, prompt: Prompt) -> None:
        """Add a prompt."""
        text = prompt.text
        low, high = self.bounds
        self.bounds = (text, text) if not self._places else (min(low, text), max(high, text))
        self.empties.append(prompt.empty)
        shape = any(m.attachments for m in prompt.messages), tuple([m.role for m in prompt.messages])
        self.shapes.append(self._shapes.setdefault(shape, len(self._shapes)))
        self._sampling.append(self._number(prompt.sampling))
        try:
            record = marshal.dumps((tuple(map(_message, prompt.messages)), prompt.task_type))
        except ValueError:  # an attachment, whose bytes are read when it is sent
            record = b""
            self._objects[len(self._places)] = prompt.messages, prompt.task_type
        self._places.append(self._spool.put(record))

    @property
    def holds_objects(self) -> bool:
        """Whether a prompt holds more than text."""
        return bool(self._objects)

    def _number(self, sampling: Sampling) -> int:
        if sampling == self._samplings[0]:
            return 0
        number = self._numbers.setdefault(repr(sampling), len(self._samplings))
        if number == len(self._samplings):
            self._samplings.append(sampling)
        return number

    def __len__(self) -> int:
        return len(self._places)

    def messages(self, i: int) -> tuple[Message, ...]:
        """The messages of a prompt."""
        return self._read(i)[0]

    def turns(self, i: int) -> list[str]:
        """The messages of a prompt as a request's key has them. Without attachments: without making a message."""
        if record := self._spool.get(self._places[i]):
            return [identity.turn(role, content) for role, content, _ in marshal.loads(record)[0]]  # noqa: S302 - bytes of this process
        return [identity.text_of(m.identity) if m.attachments else identity.turn(m.role, m.content) for m in self.messages(i)]

    def sampling(self, i: int) -> Sampling:
        """What the row sets for itself; one object for all that set the same."""
        return self._samplings[self._sampling[i]]

    def item(self, i: int) -> Prompt:
        messages, task = self._read(i)
        return Prompt(messages, self.sampling(i), task)

    def _read(self, i: int) -> tuple[tuple[Message, ...], str | None]:
        at, read = self._last
        if at == i:  # several rows of one prompt follow each other
            return read
        if record := self._spool.get(self._places[i]):
            messages, task = marshal.loads(record)  # noqa: S302 - bytes of this process
            read = tuple(Message(*m) for m in messages), task
        else:
            read = self._objects[i]
        self._last = i, read
        return read


class Repeated(_Lazy[Prompt]):
    """Each prompt `times` times, one after the other: it is asked of so many routes, or so often."""

    def __init__(self, prompts: PromptSpool, times: int) -> None:
        self.prompts, self._times = prompts, times

    def __len__(self) -> int:
        return len(self.prompts) * self._times

    def item(self, i: int) -> Prompt:
        return self.prompts.item(i // self._times)


class PromptTexts(_Lazy[str]):
    """The last user turn of each prompt."""

    def __init__(self, prompts: Sequence[Prompt], bounds: tuple[str, str]) -> None:
        self._prompts, self.bounds = prompts, bounds

    def __len__(self) -> int:
        return len(self._prompts)

    def item(self, i: int) -> str:
        return self._prompts[i].text


def texts(prompts: Sequence[Prompt]) -> Sequence[str]:
    """The last user turn of each prompt, for tables and previews."""
    spool = prompts.prompts if isinstance(prompts, Repeated) else prompts
    return PromptTexts(prompts, spool.bounds) if isinstance(spool, PromptSpool) else [p.text for p in prompts]


def empties(prompts: list[Prompt] | PromptSpool) -> Iterable[int]:
    """Whether each prompt asks nothing; of many, known without reading them again."""
    return prompts.empties if isinstance(prompts, PromptSpool) else [p.empty for p in prompts]


def gathered(prompts: Iterable[Prompt], folder: Path, times: int = 1) -> list[Prompt] | PromptSpool:
    """The prompts as a list, or in a spool where `times` rows each make them many."""
    if isinstance(prompts, list) and len(prompts) * times < MANY:
        return prompts
    few: list[Prompt] = []
    spool: PromptSpool | None = None
    for prompt in prompts:
        if spool is not None:
            spool.append(prompt)
            continue
        few.append(prompt)
        if len(few) * times >= MANY:
            spool = PromptSpool(folder)
            for one in few:
                spool.append(one)
            few.clear()
    return few if spool is None else spool
