"""A pool on a GPU whose random model thinks: no tag in any of 200 texts, and thoughts of at most as many tokens as were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import thinking_models as models
from pool_fake import Pool, Pools

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")]

TEXTS = 200


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pools(tmp_path)
    folder = str(models.random_thinker(tmp_path / "model"))
    flags = ("--model", folder, "--devices", "cuda:0", "--dtype", "float32", "--memory", "0.1", "--max-len", "256")
    one = made.start("--runner", "holynb.pool.engine.runner:Runner", *flags, ready=False)
    one.wait(lambda: one.ask("/health")[1]["state"] != "starting", 120)
    one.record = one.now() or one.record
    yield one
    made.end()


def test_no_tag_in_any_of_200_texts(pool: Pool) -> None:
    def ask(body: dict[str, Any]) -> tuple[str, str, int]:
        status, answer = pool.ask("/v1/chat/completions", body)
        assert status == 200, (answer, pool.log())
        message = answer["choices"][0]["message"]
        thought: int = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        return message["content"], message.get("reasoning_content", ""), thought

    bodies = models.asked_of_random(TEXTS)
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(ask, bodies))
    assert not [a for a in answers if "think>" in a[0] or "think>" in a[1]]
    assert sum(thought > 0 for *_, thought in answers) > TEXTS // 5, "many of them think"
    # Opened, nine tokens, the closing line and its tag.
    assert all(thought <= 12 for (*_, thought), body in zip(answers, bodies, strict=True) if "thinking_budget" in body)
    assert not any(thought for (*_, thought), body in zip(answers, bodies, strict=True) if "chat_template_kwargs" in body), (
        "thinking is off"
    )
