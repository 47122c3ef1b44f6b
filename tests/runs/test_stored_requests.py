"""The key of a stored request is that of the request, though no request is made for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holynb.run.prompt_spool import PromptSpool
from holynb.run.stored_requests import StoredRequests
from holynb.types import Message, Prompt, Request, Route, Sampling

TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=5) | st.just("\ud800")), max_size=3)


@given(st.lists(TURNS, min_size=1, max_size=4), st.integers(1, 2))
def test_it_is_the_requests(asked: list[list[Message]], times: int) -> None:
    prompts = PromptSpool()
    stored = StoredRequests(prompts, times)
    kinds = [stored.add_kind(Request(0, (), Route("a", "b"), Sampling(max_tokens=n), sample=n)) for n in range(times)]
    for turns in asked:
        prompts.append(Prompt(tuple(turns)))
        for kind in kinds:
            stored.append(kind)
    stored.append(None)
    for row in range(len(asked) * times):
        request = stored[row]
        assert isinstance(request, Request)
        assert stored.key(row, "u") == request.key("u")
    assert stored.key(len(asked) * times, "u") is None
