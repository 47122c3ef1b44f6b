"""What a pool's server asks of a rank for one answer. Knows no frames and no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Job", "JobThinking", "LogitRules", "TokenScore"]

#: A token, its log probability, and the most probable tokens at its place with theirs, the most probable first.
TokenScore = tuple[int, float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True)
class LogitRules:
    """What changes a row's logits before its token is chosen; the defaults change nothing.

    `bias` adds to tokens' logits, and where `allowed` names tokens no other is taken. The repetition penalty (Keskar et al. 2019,
    arXiv:1909.05858) is over prompt and answer, as transformers has it; presence and frequency penalties are over the answer, as
    OpenAI defines them. The end tokens are masked for `min_tokens`. `min_p` drops tokens less probable than that share of the most
    probable one (Nguyen et al. 2024, arXiv:2407.01082), after top-k and top-p.
    """

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_p: float = 0.0
    min_tokens: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    allowed: tuple[int, ...] = ()

    @property
    def counts_tokens(self) -> bool:
        """Whether the next token depends on how often each was taken so far."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class JobThinking:
    """How a row thinks before its answer, in tokens. `begins`: the one that begins it, at the answer's head; None: the prompt ends with it.

    `blanks` may stand before that one. After `ends` the answer begins; before the last of several others may come (harmony's `<|message|>`,
    before which `<|constrain|>json` may stand). Once `budget` tokens were thought, `closing` follows; None: never.
    """

    begins: int | None
    ends: tuple[int, ...]
    closing: tuple[int, ...]
    budget: int | None = None
    blanks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to continue. `ids` are prompt tokens; `eos` end the answer unless `ignore_eos`, `stop_ids` end it in any case.

    Temperature 0 is greedy; top_k 0 is all. `grammar` (llguidance's own text) constrains the answer; None: no constraint.
    `logprobs`: alternatives whose log probability is emitted with each token and its own, before anything changed the logits; None:
    no log probabilities. `prompt_logprobs`: those of the prompt's tokens, too. `thinking`: its grammar begins after it, and it may be
    ended; None: nothing depends on whether the row thinks. `pooling`: a vector is wanted instead of an answer, and how it is made.
    `client`: whose it is, by the name of the token it came with; empty: the pool's owner's. Clients take turns.
    """

    id: int
    ids: tuple[int, ...]
    max_new: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    eos: tuple[int, ...] = ()
    ignore_eos: bool = False
    grammar: str | None = None
    stop_ids: tuple[int, ...] = ()
    rules: LogitRules | None = None
    logprobs: int | None = None
    prompt_logprobs: bool = False
    thinking: JobThinking | None = None
    pooling: str | None = None
    client: str = ""

    @property
    def sequential(self) -> bool:
        """Whether the choice of the next token needs the tokens before it on the host."""
        return self.grammar is not None or (self.rules is not None and self.rules.counts_tokens)

    @property
    def plain(self) -> bool:
        """Whether its tokens are sampled from the logits as they are, and nothing else is asked of them."""
        return self.grammar is None and self.rules is None and self.logprobs is None and not self.prompt_logprobs
