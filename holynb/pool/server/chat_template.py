"""A model's chat template, which comes with the model and may be any program: rendered within bounds. Knows Jinja2; no tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.utils import Namespace

from holynb.bounded import BoundedEnvironment

__all__ = ["ChatTemplate", "Message", "TemplateError", "compiled"]

Message = Mapping[str, Any]

#: The names that requests have for what a model thought, the usual one first.
_REASONING = ("reasoning_content", "thinking", "reasoning")

#: The longest that `strftime_now` formats.
_MAX_DATE_FORMAT = 200


class TemplateError(Exception):
    """The chat template rejects these messages, or the model has none."""


class ChatTemplate:
    """One compiled template. `tokens`: the model's special tokens by the names that templates use. Raises TemplateSyntaxError."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.source = source
        self._tokens = tokens
        self._environment = _environment()
        self._template = self._environment.from_string(source)
        self.variables = frozenset(find_undeclared_variables(self._environment.parse(source)))
        """The names that it reads without giving them a value itself."""

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """The conversation as text, with the generation prompt. `variables`: further ones of this request. Raises TemplateError."""
        scope = {
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            **self._tokens,
            **variables,
            "messages": [_as_read(m) for m in messages],
        }
        try:
            return self._environment.rendered(self._template, scope)
        except Exception as exc:  # a template is a program that comes with the model, and may fail in any way
            raise TemplateError(f"The model's chat template refuses these messages: {exc}") from exc


def _as_read(message: Message) -> Message:
    """A message as transformers hands it to a template: nothing that is null, and reasoning by every name that templates have for it."""
    given = {name: value for name, value in message.items() if value is not None}
    thought = next((given[name] for name in _REASONING if name in given), None)
    return given if thought is None else {"thinking": thought, **given, "reasoning_content": thought}


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what a model is trained to write; for a prompt it is only what stands inside."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _TemplateDict:
    """`dict` of chat templates: makes one, and nothing else of the type can be reached."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    @staticmethod
    def fromkeys(keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)

    def __str__(self) -> str:
        return "dict"


class _TemplateNamespace(Namespace):
    """`namespace` of chat templates, which keeps no name that begins with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        # As Jinja2 has it: without a name, so that `namespace(self=…)` works.
        self, *rest = args
        names = dict(*rest, **values)
        for name in names:
            _check_kept(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_kept(name)
        super().__setitem__(name, value)


def _check_kept(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name that begins with an underscore ({name:.40})")


def _environment() -> BoundedEnvironment:
    """The sandbox with the functions and blanks that templates on the Hugging Face hub expect."""
    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag])
    bounded = environment.filters["tojson"]

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> Any:
        return bounded(environment, value, indent, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)

    environment.offer(tojson=to_json)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    # A method of a global is called where it is a global itself; no template can write this name.
    environment.globals |= {"dict": _TemplateDict(), "dict.fromkeys": _TemplateDict.fromkeys, "namespace": _TemplateNamespace}
    return environment


def _refuse(message: str) -> NoReturn:
    raise JinjaError(message)


def _now(form: str) -> str:
    if len(form) > _MAX_DATE_FORMAT:
        raise JinjaError(f"the format of a date has at most {_MAX_DATE_FORMAT} characters")
    return datetime.now().strftime(form)  # noqa: DTZ005 - as transformers: a template that writes the zone writes none


def compiled(source: str, tokens: Mapping[str, str]) -> ChatTemplate:
    """The compiled template. Raises ValueError, one line that says where it is no Jinja."""
    try:
        return ChatTemplate(source, tokens)
    except TemplateSyntaxError as exc:
        raise ValueError(f"line {exc.lineno}: {exc.message}") from exc
    except SyntaxError as exc:  # of the Python that it is compiled to: {% break %} outside of a loop
        raise ValueError(str(exc.msg)) from exc
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
