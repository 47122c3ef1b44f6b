"""`--schema` from the request to typed columns: asked beside the prompt or in words, repaired once, moved on, paid in full, kept."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import pytest
from servers.exact import Asked, Exact, Step, reply

import holynb
from holynb import runlog
from holynb.config import settings
from holynb.config.options import Options
from holynb.engines.sample_json import sample_json
from holynb.errors import BadOption, Fault, InferError
from holynb.run import plan, pythoncode, quote, resume, session
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.validation import ResponseValidator, supports_schema
from holynb.schema import load
from holynb.types import Completion, Endpoint, Message, Request, Route, Sampling

REVIEW = {
    "type": "object",
    "properties": {
        "label": {"enum": ["positive", "negative"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "sure": {"type": "number"},
        "again": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "text": {"type": "string"},
    },
    "required": ["label", "stars"],
}
GOOD = '{"label": "positive", "stars": 4, "sure": 1, "again": true, "tags": ["a"], "text": "fine"}'


class Clerk:
    """An OpenAI-compatible server: answers what `says` makes of (last message, number of the request); keeps what it was asked."""

    def __init__(self, says: Any, refuses: Any = "", status: int = 400) -> None:
        self.says, self.status = says, status
        self.refuses = {"error": {"message": refuses, "type": "invalid_request_error"}} if refuses and isinstance(refuses, str) else refuses
        self.bodies: list[dict[str, Any]] = []
        self.refused = 0

    def __call__(self, request: Asked, number: int) -> list[Step]:
        body = request.json
        self.bodies.append(body)
        if self.refuses and "response_format" in body:
            self.refused += 1
            return [reply(self.refuses, self.status)]
        text = self.says(body["messages"], number)
        return [
            reply(
                {
                    "model": "clerk",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                }
            )
        ]


def serve(base: str, **provider: Any) -> None:
    settings.override(provider={"mine": {"base": base, **provider}}, price={"mine/clerk": {"input": 1.0, "output": 1.0}})


def ask(rows: list[str], **options: Any) -> holynb.Run:
    return holynb.infer(rows, "mine/clerk", schema=REVIEW, **options)


def test_columns_are_typed_whatever_came() -> None:
    answers = {"a": GOOD, "b": '{"label": "negative", "stars": 1}', "c": "no"}
    with Exact(Clerk(lambda messages, n: answers[messages[0]["content"]])) as server:
        serve(server.base)
        frame = ask(["a", "b", "c"]).wait().frame()
    assert frame.status.tolist() == ["ok", "ok", "error"]
    dtypes = {"label": "string", "stars": "Int64", "sure": "Float64", "again": "boolean", "tags": "object", "answer_text": "string"}
    assert {name: str(frame[name].dtype) for name in dtypes} == dtypes
    assert frame.label.tolist()[:2] == ["positive", "negative"]
    assert frame.stars.tolist()[:2] == [4, 1]
    assert frame.tags[0] == ["a"]
    assert frame.loc[1:, ["sure", "again", "tags", "answer_text"]].isna().all(axis=None)
    assert frame.loc[2, list(dtypes)].isna().all()
    assert frame.text[0] == GOOD


def test_the_schema_goes_beside_the_prompt_where_the_wire_has_it() -> None:
    clerk = Clerk(lambda messages, n: GOOD)
    with Exact(clerk) as server:
        serve(server.base)
        ask(["hello"]).wait()
    (body,) = clerk.bodies
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["stars"]["minimum"] == 1


def test_else_it_goes_in_words() -> None:
    clerk = Clerk(lambda messages, n: GOOD)
    with Exact(clerk) as server:
        serve(server.base, options={"structured": False})
        ask(["hello"], system="Be brief.").wait()
    (body,) = clerk.bodies
    assert "response_format" not in body
    assert body["messages"][0]["content"].startswith("Be brief.\n\nAnswer with JSON alone")
    assert '"minimum":1' in body["messages"][0]["content"]


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


#: How servers say no to a schema beside the prompt, as their users reported it. Status, body, where.
REFUSALS: dict[str, tuple[int, Any]] = {
    # https://github.com/bytedance/deer-flow/issues/545
    "deepseek": (400, error("This response_format type is unavailable now", type="invalid_request_error", code="invalid_request_error")),
    # https://github.com/browser-use/browser-use/pull/215
    "deepseek, plain text": (
        422,
        b"Failed to deserialize the JSON body into the target type: response_format: response_format.type `json_schema` is unavailable now at line 1 column 12440",
    ),
    # https://github.com/openai/openai-dotnet/issues/276
    "openai": (
        400,
        error(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with model version `gpt-4o`.",
            param="response_format",
        ),
    ),
    # https://github.com/BerriAI/litellm/issues/2442
    "litellm": (
        400,
        error(
            "MistralException - mistral does not support parameters: {'response_format': {'type': 'json_schema'}}. To drop these, set `litellm.drop_params=True`.",
            code="400",
        ),
    ),
    # https://github.com/BerriAI/litellm/issues/6610
    "xai": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "The response_format parameter is unsupported at the moment. Leave it unset.",
        },
    ),
    # https://github.com/agno-agi/agno/issues/2553
    "volcengine": (
        400,
        error(
            "The parameter `response_format.type` specified in the request are not valid: invalid value: `json_schema`, supported values are: `json_object` and `text`.",
            code="InvalidParameter",
        ),
    ),
    # https://github.com/i-am-bee/beeai-framework/issues/1215
    "groq": (
        400,
        error(
            "invalid schema for response format: response_format/json_schema/next_step: minItems is not supported",
            type="invalid_request_error",
        ),
    ),
    # https://github.com/block/buzz/issues/3018
    "openrouter": (404, error("No endpoints found that can handle the requested parameters.", code=404)),
    # https://github.com/pydantic/pydantic-ai/issues/2976
    "openrouter, of google": (
        400,
        error(
            "Provider returned error",
            code=400,
            metadata={
                "raw": '{\n "error": {\n "code": 400,\n "message": "JSON mode is not enabled for models/gemma-3-27b-it",\n "status": "INVALID_ARGUMENT"\n }\n}\n',
                "provider_name": "Google AI Studio",
            },
        ),
    ),
    # https://github.com/bhimrazy/receipt-ocr/issues/20
    "lm studio": (400, {"error": "'response_format.json_schema.schema' must be an object"}),
    # https://github.com/ollama/ollama/issues/8126
    "ollama": (400, error('invalid format: expected "json" or a JSON schema', type="invalid_request_error")),
    # https://github.com/datalab-to/marker/issues/984
    "ollama, 500": (500, {"error": "invalid JSON schema in format"}),
    # https://github.com/ollama/ollama/issues/10805
    "ollama, vocabulary": (500, error("failed to load model vocabulary required for format", type="api_error")),
    # https://github.com/lidge-jun/opencodex/issues/2135
    "llama.cpp": (400, error("Failed to initialize samplers: failed to parse grammar", code=400, type="invalid_request_error")),
    # https://github.com/ggml-org/llama.cpp/issues/22396
    "llama.cpp, gemma": (400, error("Failed to initialize samplers: std::exception", code=400, type="invalid_request_error")),
    # https://github.com/ggml-org/llama.cpp/issues/11847
    "llama.cpp, both": (
        400,
        error('Either "json_schema" or "grammar" can be specified, but not both', code=400, type="invalid_request_error"),
    ),
    # https://github.com/huggingface/text-generation-inference/pull/2309
    "tgi": (
        422,
        {"error": "Input validation error: grammar is not valid: Grammar must have a 'properties' field", "error_type": "validation"},
    ),
    # https://github.com/huggingface/text-generation-inference/issues/2899
    "tgi, plain text": (
        422,
        b"Failed to deserialize the JSON body into the target type: response_format: missing field `value` at line 1 column 168",
    ),
    # https://github.com/vllm-project/vllm/issues/26421
    "vllm": (400, error("The provided JSON schema contains features not supported by xgrammar.", type="BadRequestError", code=400)),
    "anthropic": (400, error("The specified schema produces a constraint that has too many states for serving.")),
}


def test_an_answer_that_is_none_of_the_schema_says_why_it_is_not() -> None:
    asked = Request(0, (Message("user", "x"),), Route("a", "b"), Sampling(), schema=REVIEW)
    for reason, why in (("stop", "schema: "), ("length", "--max-tokens"), ("refusal", "the model refused")):
        with pytest.raises(Fault, match=why):
            ResponseValidator(load(REVIEW)).check(WorkItem(asked, ("a",)), Completion("I cannot", reason, "m"))


@pytest.mark.parametrize(("status", "body"), REFUSALS.values(), ids=REFUSALS)
def test_a_server_that_refuses_it_is_told_in_words_from_then_on(status: int, body: Any) -> None:
    clerk = Clerk(lambda messages, n: GOOD, refuses=body, status=status)
    with Exact(clerk) as server:
        serve(server.base)
        frame = ask([f"row {i}" for i in range(30)], concurrency=4, retries=0).wait().frame()
    assert frame.status.eq("ok").all()
    assert 1 <= clerk.refused <= 4, "what was on its way, and no more"
    assert int(frame.attempts.sum()) == len(clerk.bodies) == 30 + clerk.refused


@pytest.mark.parametrize(
    ("status", "body", "kind", "attempts"),
    [
        (404, error("The model `clerk` does not exist or you do not have access to it.", code="model_not_found"), "not_found", 1),
        (400, error("Unknown role: robot"), "bad_request", 1),
        (400, error("'messages' must hold at least one schema-free message"), "bad_request", 2),  # these words would be about the schema
    ],
)
def test_what_is_refused_for_another_reason_stays_refused(status: int, body: Any, kind: str, attempts: int) -> None:
    with Exact(lambda asked, n: [reply(body, status)]) as server:
        serve(server.base)
        with pytest.raises(InferError):
            ask(["hello"], retries=2).wait()
        frame = holynb.last.frame()
        assert (frame.error_type[0], len(server.asked)) == (kind, attempts)


@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_the_server_keeps_back_is_repaired_like_any_other(times: int) -> None:
    # https://github.com/thepersonalaicompany/amurex-backend/issues/38
    kept = error(
        "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details.",
        type="invalid_request_error",
        code="json_validate_failed",
        failed_generation="```json\n{ half",
    )
    clerk = Clerk(lambda messages, n: GOOD)
    with Exact(lambda asked, n: [reply(kept, 400)] if n < times else clerk(asked, n)) as server:
        serve(server.base)
        run = ask(["hello"], retries=0)
        if times == 1:
            assert run.wait().frame()[["status", "attempts", "label"]].iloc[0].tolist() == ["ok", 2, "positive"]
            assert "{ half" in clerk.bodies[0]["messages"][1]["content"]
            assert "response_format" in clerk.bodies[0], "the server knows structured output"
        else:
            with pytest.raises(InferError, match="json_validate_failed"):
                run.wait()
            assert run.frame().error_type[0] == "invalid_output"


def test_an_answer_that_does_not_hold_is_repaired_once_and_both_are_paid() -> None:
    clerk = Clerk(lambda messages, n: GOOD if len(messages) > 1 else '{"label": "so so", "stars": 9}')
    with Exact(clerk) as server:
        serve(server.base)
        run = ask(["hello"], retries=0).wait()
    frame = run.frame()
    assert frame[["status", "attempts", "tokens_in", "tokens_out", "label"]].iloc[0].tolist() == ["ok", 2, 20, 10, "positive"]
    assert frame.cost[0] == pytest.approx(30e-6)
    _, repair = clerk.bodies
    assert [m["role"] for m in repair["messages"]] == ["user", "assistant", "user"]
    assert "so so" in repair["messages"][1]["content"]
    assert "stars: 9 is greater than the maximum of 5" in repair["messages"][2]["content"]


def test_the_second_that_does_not_hold_ends_the_row_and_says_why() -> None:
    clerk = Clerk(lambda messages, n: '{"label": "positive"}')
    with Exact(clerk) as server:
        serve(server.base)
        with pytest.raises(InferError, match="'stars' is a required property"):
            ask(["hello"]).wait()
        frame = holynb.last.frame()
    assert len(clerk.bodies) == 2
    assert frame.error_type[0] == "invalid_output"
    assert frame.attempts[0] == 2
    assert frame.text.isna()[0]
    assert frame.cost[0] == pytest.approx(30e-6)


def test_it_moves_on_to_the_fallback_and_begins_anew_there() -> None:
    weak, strong = Clerk(lambda messages, n: "no"), Clerk(lambda messages, n: GOOD if len(messages) > 1 else "no")
    with Exact(weak) as one, Exact(strong) as other:
        settings.override(provider={"mine": {"base": one.base}, "theirs": {"base": other.base}})
        frame = ask(["hello"], fallback=("theirs/clerk",)).wait().frame()
    assert (len(weak.bodies), len(strong.bodies)) == (2, 2)
    assert frame[["status", "route", "attempts", "label"]].iloc[0].tolist() == ["ok", "theirs/clerk", 4, "positive"]
    assert "does not match the schema" in frame.error[0]


def test_a_router_escalates_what_stays_invalid() -> None:
    weak, strong = Clerk(lambda messages, n: "no"), Clerk(lambda messages, n: GOOD)
    with Exact(weak) as one, Exact(strong) as other:
        settings.override(
            provider={"mine": {"base": one.base}, "theirs": {"base": other.base}},
            router={"r": {"routes": {"classification": "mine/clerk"}, "other": "theirs/clerk", "escalate": "theirs/clerk"}},
        )
        rows = ["Is this review positive or negative? Fine.", "Why did sales fall in March? Analyse the reasons."]
        frame = holynb.infer(rows, "mine/clerk", router="r", schema=REVIEW).wait().frame()
    assert frame.status.tolist() == ["ok", "ok"]
    assert frame.route.tolist() == ["theirs/clerk", "theirs/clerk"]
    assert (len(weak.bodies), len(strong.bodies)) == (2, 2)


def test_without_a_schema_a_router_reaches_no_further() -> None:
    made = plan.make("Is this review positive or negative? Fine.", "sim/echo", Options.parse({"router": "task_type"}))
    assert [str(e.route) for e in made.targets.endpoints] == ["sim/echo"]
    assert made.targets.escalate is None


@pytest.mark.parametrize("broken", [0.1, 0.3])
def test_what_holds_after_one_repair_is_kept(broken: float) -> None:
    def says(messages: list[dict[str, str]], number: int) -> str:
        return GOOD[: len(GOOD) // 2] if number % 10 < 10 * broken else GOOD

    with Exact(Clerk(says)) as server:
        serve(server.base, options={"structured": False})
        frame = ask([f"row {i}" for i in range(300)]).wait().frame()
    assert (frame.status == "ok").mean() > 1 - 2.5 * broken**2, "only what was broken twice is lost"
    assert set(frame.attempts) == {1, 2}


def test_the_same_again_comes_from_the_log_typed(home: Path) -> None:
    clerk = Clerk(lambda messages, n: GOOD if len(messages) > 1 else "no")
    with Exact(clerk) as server:
        serve(server.base)
        ask(["hello"]).wait()
        again = ask(["hello"]).wait().frame()
        other = holynb.infer(["hello"], "mine/clerk", schema={"type": "object", "properties": {"label": {"type": "string"}}}, retries=0)
        other.wait()
    assert again.cached.tolist() == [True]
    assert again.stars.tolist() == [4]
    assert len(clerk.bodies) == 4, "another schema is another question"


def test_a_run_is_resumed_with_its_schema(home: Path) -> None:
    answers = Counter[str]()

    def says(messages: list[dict[str, str]], number: int) -> str:
        answers[messages[0]["content"]] += 1
        return GOOD if answers["b"] > 2 or messages[0]["content"] == "a" else "no"

    with Exact(Clerk(says)) as server:
        serve(server.base)
        run = ask(["a", "b"], name="first").wait()
        assert run.frame().status.tolist() == ["ok", "error"]
        then = holynb.Run(resume.resumed("first")).start().wait().frame()
    assert then.status.tolist() == ["ok", "ok"]
    assert then.stars.tolist() == [4, 4]


def test_into_brings_the_columns_along() -> None:
    df = pd.DataFrame({"x": ["a", "b"], "label": ["mine", "mine"]}, index=["r", "s"])
    frame = holynb.infer("{{ x }}", "sim/json", df=df, into="answer", schema=REVIEW).wait().frame()
    assert list(frame.columns) == ["x", "label", "answer", "answer_label", "stars", "sure", "again", "tags", "answer_text"]
    assert frame.label.tolist() == ["mine", "mine"]
    assert frame.index.tolist() == ["r", "s"]
    assert list(df.columns) == ["x", "label"]


def test_rows_in_parts_hold_to_it_too() -> None:
    long = "\n\n".join(f"Paragraph {i} says that the harbour was quiet." for i in range(60))
    run = holynb.infer([long], "sim/json", schema=REVIEW, chunk="320", cache=False).wait()
    frame = run.frame()
    assert frame.status.tolist() == ["ok"]
    assert frame.stars.notna().all()
    assert len(run.chunks()) > 3


def test_pydantic_models_are_schemas() -> None:
    model = pydantic.create_model("Answer", label=(str, ...), stars=(int, pydantic.Field(ge=1, le=5)))
    frame = holynb.infer(["x"], "sim/json", schema=model).wait().frame()
    assert 1 <= frame.stars[0] <= 5


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "is not a JSON Schema"),
        ({"type": "object", "propertys": {}}, "Did you mean properties"),
        ({"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}, "contains itself"),
        ("nowhere.json", "there is no such file"),
        (5, "is an int, not a JSON Schema"),
    ],
)
def test_what_is_no_schema_is_said_before_anything_is_sent(schema: Any, says: str) -> None:
    before = len(session.runs())
    with pytest.raises(BadOption, match=says):
        holynb.infer(["x"], "sim/json", schema=schema)
    assert len(session.runs()) == before


def test_the_estimate_counts_the_words() -> None:
    plainly = quote.quote(plan.make("hello", "sim/echo", Options.parse({})))
    held = quote.quote(plan.make("hello", "sim/echo", Options.parse({"schema": REVIEW})))
    assert held.estimate.tokens_in[0] > plainly.estimate.tokens_in[1]


def test_the_code_names_the_schema() -> None:
    assert "schema=Review," in pythoncode.code("x", "sim/json", Options.parse({"schema": "Review"}))
    assert "schema='review.json'," in pythoncode.code("x", "sim/json", Options.parse({"schema": "review.json"}))


@pytest.mark.parametrize(
    ("wire", "options", "takes"),
    [
        ("openai", {}, True),
        ("openai", {"structured": False}, False),
        ("anthropic", {}, True),
        ("gemini", {}, True),
        ("pool", {}, True),
        ("sagemaker", {}, True),
        ("sagemaker", {"schema": "tgi"}, False),
        ("sagemaker", {"request": {"a": 1}}, False),
        ("sim", {}, False),
    ],
)
def test_who_takes_a_schema(wire: str, options: dict[str, Any], takes: bool) -> None:
    assert supports_schema(Endpoint(Route("x", "y"), wire, options=options)) is takes


@pytest.mark.parametrize(
    "schema",
    [
        REVIEW,
        {"type": "array", "items": {"type": "number", "minimum": 3}},
        {"enum": ["a", "b"]},
        {"type": "boolean"},
        {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False},
        {"type": "array", "items": [{"type": "integer"}], "additionalItems": {"type": "string"}, "minItems": 3, "maxItems": 4},
        {"allOf": [{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"properties": {"n": {"minimum": 3}}}]},
    ],
)
def test_what_the_simulator_makes_up_fits(schema: dict[str, Any]) -> None:
    held = load(schema)
    for draw in range(50):
        assert held.check(json.dumps(sample_json(held.wire, draw))).error is None


def test_a_budget_holds_with_repairs() -> None:
    with Exact(Clerk(lambda messages, n: "no" if len(messages) == 1 else GOOD)) as server:
        serve(server.base)
        run = ask([f"row {i}" for i in range(50)], budget=0.001, max_tokens=5).wait()
    spent = sum((o.cost or Decimal(0) for o in run.rows() if o), Decimal(0))
    assert Decimal(0) < spent <= Decimal("0.001")
    assert run.summary().errors["budget"] > 0


def test_what_did_not_hold_is_kept_in_the_log_as_it_came(home: Path) -> None:
    with Exact(Clerk(lambda messages, n: f"no, and once more no: {n}")) as server:
        serve(server.base)
        with pytest.raises(InferError):
            ask(["hello"]).wait()
    with runlog.log().reading() as db:
        kept = db.execute("SELECT kind, raw, tokens_out FROM attempts ORDER BY attempt").fetchall()
    assert [(kind, tokens) for kind, _, tokens in kept] == [("invalid_output", 5)] * 2
    assert all(raw.startswith("no, and once more no") for _, raw, _ in kept)


def test_a_resumed_run_escalates_too(home: Path) -> None:
    weak, strong = Clerk(lambda messages, n: "no"), Clerk(lambda messages, n: "no" if n < 3 else GOOD)
    with Exact(weak) as one, Exact(strong) as other:
        settings.override(
            provider={"mine": {"base": one.base}, "theirs": {"base": other.base}},
            router={"r": {"routes": {"classification": "mine/clerk"}, "other": "mine/clerk", "escalate": "theirs/clerk"}},
        )
        run = holynb.infer(["Is this review positive or negative? Fine."], "mine/clerk", router="r", schema=REVIEW, name="first")
        with pytest.raises(InferError):
            run.wait()
        then = holynb.Run(resume.resumed("first")).start().wait().frame()
    assert then[["status", "route", "stars"]].iloc[0].tolist() == ["ok", "theirs/clerk", 4]


def test_an_answer_of_the_log_is_held_to_the_model_as_it_is_now() -> None:
    def model(most: int) -> Any:
        def check(cls: Any, value: int) -> int:
            if value > most:
                raise ValueError(f"at most {most}")
            return value

        return pydantic.create_model("Answer", stars=(int, ...), __validators__={"few": pydantic.field_validator("stars")(check)})

    clerk = Clerk(lambda messages, n: '{"stars": 4}' if len(messages) == 1 else '{"stars": 3}')
    with Exact(clerk) as server:
        serve(server.base)
        frames = [holynb.infer(["hello"], "mine/clerk", schema=model(most)).wait().frame() for most in (5, 4, 3)]
    assert [f.cached[0] for f in frames] == [False, True, False]
    assert [f.stars[0] for f in frames] == [4, 4, 3]
