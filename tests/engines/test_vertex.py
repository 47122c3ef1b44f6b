"""Gemini through Vertex: address, project, location, the Google Cloud login, and google-genai's own client as the oracle."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google import genai
from google.auth import exceptions
from google.auth.credentials import Credentials
from google.genai import types
from servers import golden, google_sdk
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import Exact, reply

import holynb
from holynb.config import keys, providers, settings
from holynb.engines import vertex
from holynb.errors import BadRoute, BadSetting, InferError, UserError
from holynb.types import Endpoint, Route

MODEL = "gemini-3.8-flash"


class Login(Credentials):  # type: ignore[misc]
    """Credentials that count how often they are refreshed, and where."""

    def __init__(self, token: str = KEY, lasts_s: float = 3600.0, fails: Exception | None = None, payer: str | None = None) -> None:
        super().__init__()
        self.tokens, self.lasts_s, self.fails, self.refreshed = token, lasts_s, fails, 0
        self._quota_project_id = payer

    def refresh(self, request: Any) -> None:
        self.refreshed += 1
        if self.fails is not None:
            raise self.fails
        self.token = f"{self.tokens}{self.refreshed if self.refreshed > 1 else ''}"
        self.expiry = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=self.lasts_s)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "CLOUDSDK_AUTH_ACCESS_TOKEN", "VERTEX_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    settings.reset()


def logged_in(monkeypatch: pytest.MonkeyPatch, login: Login, project: str | None = "of-the-login") -> Login:
    monkeypatch.setattr(google.auth, "default", lambda scopes: (login, project))
    return login


def at(server: Exact | None, **options: Any) -> Endpoint:
    shipped = providers.table()["vertex"].options
    return endpoint("" if server is None else server.base, "vertex", options={**shipped, **options}, login="google")


@pytest.mark.filterwarnings("ignore")  # the SDK's own
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("place", ["global", "europe-west4"])
def test_the_sdk_asks_the_same_and_reads_the_same(stream: bool, place: str) -> None:
    steps = golden.VERTEX.streamed() if stream else [reply(golden.VERTEX.whole)]
    with Exact(steps) as server:
        login = Login(payer="who-pays")
        login.refresh(None)
        http = types.HttpOptions(base_url=server.base, api_version="v1", headers={"X-Vertex-AI-LLM-Shared-Request-Type": "flex"})
        theirs = genai.Client(vertexai=True, project="p-1", location=place, credentials=login, http_options=http)
        text = google_sdk.said(theirs, MODEL, stream=stream)
        tiers = ("flex",) if place == "global" else ()
        sent = request(**google_sdk.ASKED, stream=stream, tiers=tiers)
        deltas, answer = ask(at(server, project="p-1", location=place), sent)
    (their, our) = server.asked
    ours, theirs_body = json.loads(our.body), json.loads(their.body)
    theirs_body["systemInstruction"].pop("role", None)  # which the SDK adds, and which means nothing there
    assert (our.method, our.path, ours) == (their.method, their.path, theirs_body)
    assert our.headers["authorization"] == their.headers["authorization"] == f"Bearer {KEY}"
    if tiers:
        assert our.headers["x-vertex-ai-llm-shared-request-type"] == their.headers["x-vertex-ai-llm-shared-request-type"]
    assert (answer.text, "".join(deltas)) == (text, text if stream else "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["global", "us", "eu", "us-central1", "europe-west4", "asia-northeast1"])
def test_the_sdk_has_the_same_addresses(place: str) -> None:
    theirs = genai.Client(vertexai=True, project="p", location=place, credentials=Login())
    assert str(theirs._api_client._http_options.base_url).rstrip("/") == vertex.address(place)
    theirs.close()


def test_a_token_of_the_login_is_fetched_once_and_again_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for lasts_s, refreshed in ((3600.0, 1), (100.0, 3)):
        login = logged_in(monkeypatch, Login(lasts_s=lasts_s))
        with Exact([reply(golden.VERTEX.whole)]) as server:
            import asyncio

            from servers.asking import connect, hear

            async def three() -> None:
                engine = connect(at(server), key=None)
                for _ in range(3):
                    await hear(engine, request())
                await engine.aclose()

            asyncio.run(three())
        assert login.refreshed == refreshed
        assert {a.path for a in server.asked} == {
            f"/v1/projects/of-the-login/locations/global/publishers/google/models/{MODEL}:generateContent"
        }


def test_a_login_that_pays_elsewhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login(payer="who-pays"))
    with Exact([reply(golden.VERTEX.whole)]) as server:
        ask(at(server), key=None)
    assert server.asked[0].headers["x-goog-user-project"] == "who-pays"


def test_a_servers_echo_of_the_token_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login())
    with Exact([golden.gemini_error(401, "UNAUTHENTICATED", f"the token {KEY} has expired")]) as server:
        fault = refuse(at(server), key=None)
    assert fault.kind == "auth"
    assert "gcloud auth application-default login" in fault.message


# -- what is missing -------------------------------------------------------------------------------------------------------


def refused(monkeypatch: pytest.MonkeyPatch, model: str = MODEL, **options: Any) -> str:
    """The one line of a run that cannot begin; nothing is sent."""
    with Exact([]) as server, pytest.raises((UserError, InferError)) as caught:
        monkeypatch.setenv("VERTEX_BASE_URL", server.base)
        holynb.infer(["x"], f"vertex/{model}", **options).wait()
    assert not server.asked
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_google_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.config import logins

    monkeypatch.setattr(logins, "find_spec", lambda name: None)
    line = refused(monkeypatch)
    assert "pip install google-auth, then gcloud auth application-default login" in line


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (
            exceptions.DefaultCredentialsError("Your default credentials were not found. To set up …"),
            "Your default credentials were not found",
        ),
        (exceptions.RefreshError("invalid_grant: Bad Request", {"error": "invalid_grant"}), "invalid_grant: Bad Request"),
    ],
)
def test_without_a_login_that_holds(monkeypatch: pytest.MonkeyPatch, fails: Exception, says: str) -> None:
    logged_in(monkeypatch, Login(fails=fails))
    line = refused(monkeypatch)
    assert says in line
    assert line.endswith("Run gcloud auth application-default login in a terminal.")


def test_without_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login(), project=None)
    assert "set GOOGLE_CLOUD_PROJECT, or [provider.vertex.options] project" in refused(monkeypatch)


def test_a_location_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "evil.example/x")
    with pytest.raises(BadSetting, match="is not the name of a location"):
        vertex.location(at(None))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("claude-sonnet-5@20260101", "claude-sonnet-5@20260101 is not one: use anthropic/claude-sonnet-5 or bedrock/MODEL."),
        ("publishers/anthropic/models/claude-opus-5", "use anthropic/claude-opus-5 or bedrock/MODEL."),
        ("meta/llama-4-maverick", "use openrouter/MODEL or bedrock/MODEL."),
        ("gemini-3/../../x", "is not one: use another provider."),
        ("text-bison", "is not one: use another provider."),
    ],
)
def test_models_of_others_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, model: str, says: str) -> None:
    assert refused(monkeypatch, model).endswith(says)
    with pytest.raises(BadRoute):
        holynb.run.plan.make(["x"], f"vertex/{model}", holynb.config.Options.parse({"dry_run": True}))


@pytest.mark.parametrize("model", [MODEL, f"google/{MODEL}", f"publishers/google/models/{MODEL}", f"models/{MODEL}"])
def test_the_ways_to_name_a_model(model: str) -> None:
    with Exact([reply(golden.VERTEX.whole)]) as server:
        ask(endpoint(server.base, "vertex", model=model, options={"project": "p"}))
    assert server.asked[0].path == f"/v1/projects/p/locations/global/publishers/google/models/{MODEL}:generateContent"


def test_a_tuned_models_endpoint() -> None:
    with Exact([reply(golden.VERTEX.whole)]) as server:
        ask(endpoint(server.base, "vertex", model="endpoints/123", options={"project": "p", "location": "us-central1"}))
    assert server.asked[0].path == "/v1/projects/p/locations/us-central1/endpoints/123:generateContent"


# -- tiers and settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "tier"), [("ON_DEMAND", "standard"), ("ON_DEMAND_FLEX", "flex"), ("ON_DEMAND_PRIORITY", "priority"), (None, "unsaid")]
)
def test_the_tier_is_a_header_and_the_reply_names_its_traffic(word: str | None, tier: str) -> None:
    whole = json.loads(json.dumps(golden.VERTEX.whole))
    whole["usageMetadata"] |= {"trafficType": word} if word else {}
    with Exact([reply(whole)]) as server:
        answer = ask(at(server, project="p"), request(tiers=("flex",)))[1]
    assert server.asked[0].headers["x-vertex-ai-llm-shared-request-type"] == "flex"
    assert answer.tier == tier


def test_the_standard_tier_needs_no_header_and_others_the_global_location() -> None:
    with Exact([reply(golden.VERTEX.whole)]) as server:
        ask(at(server, project="p", location="us-central1"), request(tiers=("standard",)))
        fault = refuse(at(server, project="p", location="us-central1"), request(tiers=("flex",)))
    assert len(server.asked) == 1
    assert "x-vertex-ai-llm-shared-request-type" not in server.asked[0].headers
    assert (fault.kind, fault.stops) == ("bad_request", True)
    assert "set GOOGLE_CLOUD_LOCATION=global" in fault.message


def test_a_run_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-the-environment")
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", KEY)
    with Exact([reply(golden.VERTEX.whole)]) as server:
        ended = holynb.infer(["x"], f"vertex/{MODEL}", api_base=server.base).wait()
    assert [(o.status, o.route) for o in ended.rows()] == [("ok", f"vertex/{MODEL}")]
    assert "/projects/from-the-environment/" in server.asked[0].path
    assert ended.rows()[0].cost is not None


def test_where_the_token_comes_from_is_told() -> None:
    assert keys.describe_source(settings.endpoint(Route("vertex", MODEL))) == "no key, Google Cloud login by google-auth"


def test_a_login_whose_server_was_away_and_that_names_no_project(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login(), project=None)
    with Exact([reply(golden.VERTEX.whole)]) as server:
        fault = refuse(at(server), key=None)
    assert (fault.kind, fault.stops) == ("bad_request", True)
    assert "GOOGLE_CLOUD_PROJECT" in fault.message
    assert not server.asked


@pytest.mark.parametrize("text", ["[]", "null", '{"type": "impersonated_service_account"}'])
def test_a_damaged_file_of_credentials_is_said(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adc.json").write_text(text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    fault = refuse(at(None), key=None)
    assert (fault.kind, fault.stops) == ("auth", True)
    assert "gave no token (google-auth cannot read it: " in fault.message


@pytest.mark.parametrize("fails", [KeyError("x"), SystemExit(3), RuntimeError("a\nb")])
def test_a_login_that_fails_in_its_own_way_is_said(fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login(fails=fails))
    fault = refuse(at(None), key=None)
    assert (fault.kind, fault.stops) == ("auth", True)
    assert type(fails).__name__ in fault.message


@pytest.mark.parametrize("token", ["", None, 5, f"{KEY}\r\nx: y", f"{KEY}토큰", "a b", "x" * 2**17])
def test_what_is_no_token_is_never_sent(token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    login = logged_in(monkeypatch, Login())
    monkeypatch.setattr(login, "refresh", lambda request: setattr(login, "token", token))
    with Exact([reply(golden.VERTEX.whole)]) as server:
        fault = refuse(at(server), key=None)
        assert server.asked == []
    assert (fault.kind, fault.stops) == ("auth", True)


@pytest.mark.parametrize("project", ["..", ".", "a/b", "a\n", "한", "-"])
def test_a_project_that_would_lead_elsewhere_is_none(project: str) -> None:
    with Exact([reply(golden.VERTEX.whole)]) as server:
        assert "needs the project of Google Cloud" in refuse(at(server, project=project)).message
        assert server.asked == []


@pytest.mark.parametrize("payer", [5, "a\r\nx: y", "한"])
def test_a_payer_that_is_no_project_is_said(payer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(monkeypatch, Login(payer=payer))
    fault = refuse(at(None), key=None)
    assert (fault.kind, fault.stops) == ("auth", True)
    assert "quota_project_id is not the name of a project" in fault.message
