"""How a model is told how much to think: the fields of each wire, as data, and a known model's own. Knows no request, no level of ours."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from holynb.config import models
from holynb.config.model_entries import KnownModel, Reading, ThinkingControl
from holynb.types import Route

__all__ = ["Dialect", "Guidance", "dialect", "guidance", "known_model"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire's way, or one provider's. All paths are into the request's JSON: "output_config.effort".

    usual:     for a model of which nothing is known.
    known:     model pattern → how it is told here, whoever serves it.
    models_of: a provider of models.toml whose models this wire serves under their own names.
    strips:    what stands before such a name here, as a regular expression.
    paths:     the beginning of a path in models.toml → what it is on this wire ("" fits every path).
    thoughts:  fields that ask for what was thought.
    sampling:  name in `Sampling` → path, for what a thinking model may refuse.
    budget_field: where a number of tokens goes on a wire that takes levels too.
    """

    usual: ThinkingControl
    known: Mapping[str, ThinkingControl] = field(default_factory=dict)
    models_of: str | None = None
    strips: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    thoughts: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, str] = field(default_factory=lambda: {"temperature": "temperature", "top_p": "top_p", "seed": "seed"})
    budget_field: str | None = None

    def path(self, path: str) -> str:
        """A path of models.toml on this wire."""
        for begin, here in self.paths.items():
            if not begin or path == begin or path.startswith(f"{begin}."):
                return here + path[len(begin) :]
        return path

    def own_name(self, model: str) -> str:
        """The model's name as its vendor spells it."""
        return re.sub(self.strips, "", model) if self.strips else model

    def places(self, names: Iterable[str]) -> dict[str, str]:
        """Where these fields of `Sampling` stand in a request."""
        return {name: self.sampling.get(name, name) for name in names}

    def by_name(self, model: str) -> ThinkingControl | None:
        """How a model of this name is told, whoever serves it."""
        name = model.lower()
        return next((control for pattern, control in self.known.items() if fnmatchcase(name, pattern)), None)


def _read(source: str, *, reported: bool = False) -> Reading:
    return Reading(dt.date(2026, 11, 28), source, reported)


_EFFORT = ThinkingControl(
    "reasoning_effort",
    _read("https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning"),
    ("low", "medium", "high"),
    off={"reasoning_effort": "none"},
)
_OPENAI = Dialect(_EFFORT)
_OPENROUTER = Dialect(
    ThinkingControl(
        "reasoning.effort",
        _read("https://openrouter.ai/docs/use-cases/reasoning-tokens"),
        ("minimal", "low", "medium", "high", "xhigh", "max"),
        off={"reasoning.effort": "none"},
    ),
    budget_field="reasoning.max_tokens",
)
_DEEPSEEK = Dialect(
    ThinkingControl(
        "reasoning_effort",
        _read("https://api-docs.deepseek.com/guides/thinking_mode/"),
        ("low", "high", "max"),
        on={"thinking.type": "enabled"},
        off={"thinking.type": "disabled"},
        refuses=("temperature", "top_p"),
    )
)
#: gpt-oss always thinks: its effort stands in the system message that its template writes.
_GPT_OSS = ThinkingControl(
    "reasoning_effort", _read("https://github.com/openai/gpt-oss"), ("low", "medium", "high"), default="medium", off=False
)
_SWITCH = "chat_template_kwargs.enable_thinking"
#: Of vLLM, SGLang and Ray Serve: levels reach the chat template, and the templates of Qwen3 and its kin know a switch alone.
_SERVED = Dialect(
    ThinkingControl(
        "reasoning_effort",
        _read("https://docs.vllm.ai/en/latest/features/reasoning_outputs/"),
        ("low", "medium", "high"),
        on={_SWITCH: True},
        off={_SWITCH: False},
    ),
    known={"*gpt-oss*": _GPT_OSS},
    budget_field="thinking_token_budget",
)
#: Our own pool looks into its model's template by itself, and says where a model cannot do it.
_POOL = Dialect(replace(_SERVED.usual, values=("low", "medium", "high", "max"), on={}), budget_field="thinking_budget")
_ANTHROPIC = Dialect(
    ThinkingControl(
        "output_config.effort",
        _read("https://github.com/anthropics/skills/blob/main/skills/claude-api/shared/model-migration.md"),
        ("low", "medium", "high", "max"),
        on={"thinking.type": "adaptive"},
        off={"thinking.type": "disabled"},
    ),
    models_of="anthropic",
    thoughts={"thinking.display": "summarized"},
)
_GEMINI_FIELD = "generationConfig.thinkingConfig"
_GEMINI = Dialect(
    ThinkingControl(f"{_GEMINI_FIELD}.thinkingLevel", _read("https://ai.google.dev/gemini-api/docs/thinking"), ("low", "medium", "high")),
    models_of="gemini",
    thoughts={f"{_GEMINI_FIELD}.includeThoughts": True},
    sampling={n: f"generationConfig.{p}" for n, p in (("temperature", "temperature"), ("top_p", "topP"), ("seed", "seed"))},
)
_RESPONSES = Dialect(
    replace(_EFFORT, field="reasoning.effort", off={"reasoning.effort": "none"}),
    models_of="openai",
    paths={"reasoning_effort": "reasoning.effort"},
    thoughts={"reasoning.summary": "auto"},
)
_MODEL_FIELDS = "additionalModelRequestFields."
_CLAUDE_THERE = replace(
    _ANTHROPIC.usual,
    field=f"{_MODEL_FIELDS}output_config.effort",
    on={f"{_MODEL_FIELDS}thinking.type": "adaptive"},
    off={f"{_MODEL_FIELDS}thinking.type": "disabled"},
)
#: Its high effort refuses maxTokens, too, and so would have no end that --budget could hold.
_NOVA = ThinkingControl(
    f"{_MODEL_FIELDS}reasoningConfig.maxReasoningEffort",
    _read("https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html"),
    ("low", "medium"),
    default="off",
    on={f"{_MODEL_FIELDS}reasoningConfig.type": "enabled"},
    off={f"{_MODEL_FIELDS}reasoningConfig.type": "disabled"},
)
#: Converse passes a model's own fields on under one name, has temperature and top_p in inferenceConfig, and an effort of its own.
_BEDROCK = Dialect(
    ThinkingControl(
        "outputConfig.effort",
        _read("https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_OutputConfig.html"),
        ("low", "medium", "high", "xhigh", "max"),
    ),
    known={"*claude*": _CLAUDE_THERE, "*nova-2*": _NOVA, "*gpt-oss*": replace(_GPT_OSS, field=f"{_MODEL_FIELDS}reasoning_effort")},
    models_of="anthropic",
    strips=r"^.*anthropic\.",
    paths={"": _MODEL_FIELDS},
    thoughts={f"{_MODEL_FIELDS}thinking.display": "summarized"},
    sampling={"temperature": "inferenceConfig.temperature", "top_p": "inferenceConfig.topP"},
)

#: By wire.
_WIRES: Mapping[str, Dialect] = {
    "openai": _OPENAI,
    "azure": replace(_OPENAI, models_of="openai"),
    "responses": _RESPONSES,
    "azure-responses": _RESPONSES,
    "anthropic": _ANTHROPIC,
    "gemini": _GEMINI,
    "vertex": _GEMINI,
    "bedrock": _BEDROCK,
    "sagemaker": _SERVED,
    "pool": _POOL,
    "vllm": _SERVED,  # a pool of vLLM's
}
#: By provider, of those that speak the openai wire in their own way.
_PROVIDERS: Mapping[str, Dialect] = {
    "openrouter": _OPENROUTER,
    "deepseek": _DEEPSEEK,
    "vllm": _SERVED,
    "ray": _SERVED,
    "sglang": replace(_SERVED, budget_field="chat_template_kwargs.thinking_budget"),
}


def dialect(provider: str, wire: str) -> Dialect | None:
    """How this provider is told on this wire; None where there is no way."""
    return (_PROVIDERS.get(provider) if wire == "openai" else None) or _WIRES.get(wire)


def known_model(route: Route, wire: str) -> KnownModel | None:
    """What is known of a route's model, or of the model that this wire serves under another's name, as Azure does."""
    way, known = dialect(route.provider, wire), models.find(route.provider, route.model)
    if way is None or way.models_of is None or (known is not None and (known.thinking is not None or known.thinks is not None)):
        return known
    vendors = models.find(way.models_of, way.own_name(route.model))
    return vendors or known if known is None or vendors is None else replace(known, thinking=vendors.thinking, thinks=vendors.thinks)


class Guidance(NamedTuple):
    """How a model is told on a wire. `thinks`: None where that is not known; `by_default`: where nothing is sent, too."""

    way: Dialect
    control: ThinkingControl
    thinks: bool | None
    by_default: bool


def guidance(route: Route, wire: str) -> Guidance | None:
    """How this model is told on this wire: as its own entry says, or its name, or as the wire usually is; None where there is no way."""
    way = dialect(route.provider, wire)
    if way is None:
        return None
    known = known_model(route, wire)
    own = way.by_name(route.model)
    if known is not None and known.thinking is not None:
        own = _here(known.thinking, way)
    if own is None:
        return Guidance(way, way.usual, None if known is None else known.thinks, by_default=False)
    return Guidance(way, own, thinks=True, by_default=own.default not in (None, "off"))


def _here(control: ThinkingControl, way: Dialect) -> ThinkingControl:
    """A known model's control, with the paths of this wire."""
    if not way.paths:
        return control
    off = {way.path(p): v for p, v in control.off.items()} if isinstance(control.off, Mapping) else control.off
    return replace(control, field=way.path(control.field), on={way.path(p): v for p, v in control.on.items()}, off=off)
