"""`/v1/embeddings` of a pool, by OpenAI's own SDK and by a cell: a real pool of a tiny model, against transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from one_rank import bytes_model

import holynb
from holynb import pools
from holynb.errors import BadOption, InferError
from holynb.pool.protocol import Emit, Job, StepOutput, decode, encode, job_from, job_values
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.embeddings import parse_embedding
from holynb.pool.server.pooling import Pooling, read_pooling

torch = pytest.importorskip("torch")

TEXTS = ["first text", "둘째", "x"]


@pytest.fixture
def client(home: Path) -> Iterator[openai.OpenAI]:
    info = pools.start(str(bytes_model(home / "tiny")), name="tiny", port=0)
    assert info.token is not None
    yield openai.OpenAI(base_url=info.base_url, api_key=info.token.reveal(), max_retries=0, timeout=60)
    pools.stop("all")


def states(folder: Path, text: str) -> NDArray[np.float32]:
    """What transformers makes of a text's bytes."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden: NDArray[np.float32] = model(torch.tensor([list(text.encode())])).last_hidden_state[0].numpy()
    return hidden


def refused(client: openai.OpenAI, **fields: Any) -> str:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": "tiny", "input": "x", **fields})
    return caught.value.message


def test_a_pool_embeds_for_sdks_and_for_cells(client: openai.OpenAI, home: Path) -> None:
    hidden = {text: states(home / "tiny", text) for text in TEXTS}
    means = np.stack([h.mean(0) for h in hidden.values()])
    answer = client.embeddings.create(model="tiny", input=TEXTS)  # in base64, as the SDK asks
    np.testing.assert_allclose(np.array([d.embedding for d in answer.data]), means, atol=1e-5, rtol=0)
    assert [d.index for d in answer.data] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (17, 17)
    numbers = client.embeddings.create(model="tiny", input="x", encoding_format="float", dimensions=5)
    np.testing.assert_allclose(numbers.data[0].embedding, means[2][:5], atol=1e-5, rtol=0)
    ids: Any = [list(t.encode()) for t in TEXTS]
    for given_ids, n in ((ids, 3), (ids[0], 1)):
        same = client.embeddings.create(model="tiny", input=given_ids)
        assert [d.embedding for d in same.data] == [d.embedding for d in answer.data[:n]]
    more: Any = {"pooling": "last", "normalize": True}
    last = np.array([d.embedding for d in client.embeddings.create(model="tiny", input=TEXTS, extra_body=more).data])
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(last[0], hidden[TEXTS[0]][-1] / np.linalg.norm(hidden[TEXTS[0]][-1]), atol=1e-5, rtol=0)

    assert "input must be text" in refused(client, input={"a": 1})
    assert "input.1 is empty" in refused(client, input=["a", ""])
    assert "maximum context length is 512" in refused(client, input=["ok", "x" * 600])
    assert "dimensions must be a whole number from 1 to 64" in refused(client, dimensions=65)
    assert "'temperature' is no field of this pool's embeddings" in refused(client, extra_body={"temperature": 1})
    assert "pooling must be one of mean, last" in refused(client, extra_body={"pooling": "cls"})
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="x")

    df = pd.DataFrame({"t": [*TEXTS, "x" * 600, *(f"row {i}" for i in range(100))]})
    run = holynb.infer("{{ t }}", "pool/tiny", df=df, embed=True, p={"pooling": "mean"}).wait(60)
    frame = run.frame()
    assert frame["status"].tolist() == ["ok"] * 3 + ["error"] + ["ok"] * 100
    assert frame["error_type"].iloc[3] == "context_length"
    np.testing.assert_allclose(run.vectors()[:3], means, atol=1e-5, rtol=0)
    assert "64 dimensions, not normalized" in run.summary().line()
    assert holynb.infer("{{ t }}", "pool/tiny", df=df[:3], embed=True, p={"pooling": "mean"}).wait(60).frame()["cached"].all()
    with pytest.raises(BadOption, match="-p encoding_format is not for a cell on a pool"):
        holynb.infer("x", "pool/tiny", embed=True, p={"encoding_format": "float"})
    with pytest.raises(InferError, match="dimensions must be a whole number from 1 to 64"):
        holynb.infer("x", "pool/tiny", embed=True, dimensions=65).wait(60)


# -- without a pool ------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(["input", "dimensions", "encoding_format", "pooling", "normalize", "model", "user", "n", "truncate_prompt_tokens"]),
        st.none()
        | st.booleans()
        | st.integers(-2, 9)
        | st.sampled_from(["float", "base64", "mean", "x", ""])
        | st.lists(st.integers(-1, 5)),
    )
)
@settings(max_examples=80)
def test_any_body_is_a_request_or_a_400_that_names_a_field(body: dict[str, Any]) -> None:
    try:
        request = parse_embedding(body)
    except ApiError as exc:
        assert exc.status == 400
        assert exc.param in body or exc.param == "input" or str(exc.param).startswith("input")
    else:
        assert request.texts
        assert request.dimensions is None or request.dimensions >= 1


def test_a_vector_crosses_the_socket() -> None:
    job = Job(7, (1, 2), 1, pooling="last")
    assert job_from(json.loads(json.dumps(job_values(job)))) == job
    assert "pooling" not in job_values(Job(7, (1, 2), 1)), "what few jobs have is there only where one has it"
    frame = StepOutput((Emit(1, finish="stop", vector="AAAA"), Emit(2, (5,), note="admitted", cached=3)))
    assert decode(json.loads(json.dumps(encode(frame)))) == frame


@pytest.mark.parametrize(
    ("modules", "pooled", "expected"),
    [
        (None, None, Pooling()),
        ([{"type": "sentence_transformers.models.Transformer"}], None, Pooling()),
        (
            [{"type": "a.Transformer"}, {"type": "a.Pooling"}, {"type": "a.Normalize"}],
            {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "include_prompt": True},
            Pooling("last", normalize=True),
        ),
        (None, {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 9}, Pooling("mean")),
        (None, {"pooling_mode_cls_token": True}, Pooling("mean", refusal="1_Pooling/config.json asks for cls_token")),
        (None, {}, Pooling("mean", refusal="1_Pooling/config.json asks for nothing")),
        ([{"type": "a.Dense"}], None, Pooling("mean", refusal="modules.json asks for Dense")),
        ({"a": 1}, None, Pooling(refusal="the files that say how cannot be read (modules.json is not a list of modules)")),
    ],
)
def test_how_a_model_is_pooled_stands_in_its_folder(modules: Any, pooled: Any, expected: Pooling, tmp_path: Path) -> None:
    if modules is not None:
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    if pooled is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooled))
    assert read_pooling(tmp_path) == expected
