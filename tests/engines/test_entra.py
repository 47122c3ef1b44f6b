"""A login in the place of Azure's key: when it is used, what is sent, how long a token is kept, and what is said where there is none."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from servers import golden
from servers.asking import KEY, ask, connect, endpoint, hear, refuse, request, run
from servers.exact import Exact, reply

import holynb
from holynb import doctor
from holynb.config import keys, settings
from holynb.engines import azure, entra, tokens
from holynb.engines.tokens import Token, Tokens
from holynb.errors import BadKey, BadSetting, Fault, InferError
from holynb.types import Endpoint, Route, Secret

TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9." + "Zq7RwX2vK9mTb4YhNc8L" * 4

#: azure-identity as it is asked: its own names, messages (azure-identity 1.27) and no network.
STAND_IN = """
import threading, time
from typing import NamedTuple

class AccessToken(NamedTuple):
    token: str
    expires_on: int

class ClientAuthenticationError(Exception): pass
class ServiceRequestError(Exception): pass

asked, threads, closed, fails, lasts = [], [], [], None, 3600

class DefaultAzureCredential:
    def get_token(self, *scopes):
        asked.append(scopes)
        threads.append(threading.current_thread().name)
        if fails is not None:
            raise fails
        return AccessToken("TOKEN", int(time.time()) + lasts)
    def __enter__(self):
        return self
    def __exit__(self, *exc):
        closed.append(True)
"""
NOT_LOGGED_IN = """DefaultAzureCredential failed to retrieve a token from the included credentials.
Attempted credentials:
\tEnvironmentCredential: EnvironmentCredential authentication unavailable. Environment variables are not fully configured.
\tAzureCliCredential: Please run 'az login' to set up an account
To mitigate this issue, please refer to the troubleshooting guidelines here at https://aka.ms/azsdk/python/identity."""


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for azure-identity on the path."""
    folder = tmp_path / "site" / "azure" / "identity"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN.replace("TOKEN", TOKEN))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in [n for n in sys.modules if n.partition(".")[0] == "azure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    import azure.identity as module

    yield module
    for name in [n for n in sys.modules if n.partition(".")[0] == "azure"]:
        del sys.modules[name]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure", None)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)


def at(base: str, wire: str = "azure", **options: Any) -> Endpoint:
    return endpoint(base, wire, provider="azure", login="entra", options=options) if wire else endpoint(base)


# -- what is sent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["azure", "azure-responses"])
def test_a_token_goes_as_a_bearers_and_a_key_as_api_key(identity: Any, wire: str):
    whole = golden.AZURE_RESPONSES.whole if wire == "azure-responses" else golden.AZURE.whole
    with Exact([reply(whole)]) as server:
        ask(at(server.base, wire), key=None)
        ask(at(server.base, wire), key=KEY)
        first, second = (a.headers for a in server.asked)
    assert (first["authorization"], first.get("api-key")) == (f"Bearer {TOKEN}", None)
    assert (second.get("authorization"), second["api-key"]) == (None, KEY)
    assert len(identity.asked) == 1, "with a key nobody is asked for a token"


def test_the_sdk_sends_a_token_the_same_way(identity: Any):
    with Exact([reply(golden.AZURE.whole)]) as server:
        client = OpenAI(api_key=lambda: TOKEN, base_url=f"{server.base}/openai/v1/", max_retries=0)
        client.chat.completions.create(model="dep", messages=[{"role": "user", "content": "x"}])
        client.close()
        ask(at(server.base), request(model="dep"), key=None)
        first, second = server.asked
    assert (first.path, first.headers["authorization"]) == (second.path, second.headers["authorization"])


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ({}, "https://ai.azure.com/.default"),
        ({"api_version": "preview"}, "https://ai.azure.com/.default"),
        ({"api_version": "2024-10-21"}, "https://cognitiveservices.azure.com/.default"),
        ({"scope": "https://cognitiveservices.azure.us/.default"}, "https://cognitiveservices.azure.us/.default"),
    ],
)
def test_the_scope_follows_the_address(identity: Any, options: dict[str, str], scope: str):
    with Exact([reply(golden.AZURE.whole)]) as server:
        ask(at(server.base, **options), key=None)
    assert identity.asked == [(scope,)]


def test_one_token_serves_many_rows_and_is_fetched_off_the_loop(identity: Any):
    async def many(engine: Any) -> None:
        identity.threads.append(threading.current_thread().name)
        await asyncio.gather(*(hear(engine, request(row=i)) for i in range(8)))
        await hear(engine, request())

    with Exact([reply(golden.AZURE.whole)]) as server:
        run(many, at(server.base), key=None)
        assert {a.headers["authorization"] for a in server.asked} == {f"Bearer {TOKEN}"}
        assert len(server.asked) == 9
    assert len(identity.asked) == 1
    assert identity.threads[0] != identity.threads[1]
    assert identity.closed == [True]


def test_a_token_near_its_end_is_fetched_anew(identity: Any):
    async def two(engine: Any) -> None:
        await hear(engine, request())
        await hear(engine, request())

    identity.lasts = int(tokens.MARGIN_S) - 1
    with Exact([reply(golden.AZURE.whole)]) as server:
        run(two, at(server.base), key=None)
    assert len(identity.asked) == 2


# -- where it fails ------------------------------------------------------------------------------------------------------


def test_nobody_is_logged_in(identity: Any, capfd: pytest.CaptureFixture[str]):
    identity.fails = identity.ClientAuthenticationError(NOT_LOGGED_IN)
    with Exact([reply(golden.AZURE.whole)]) as server:
        where = replace(at(server.base), key_name="AZURE_OPENAI_API_KEY")
        fault = refuse(where, key=None)
        assert server.asked == []
    assert (fault.kind, fault.retry, fault.stops) == ("auth", False, True)
    assert re.search(
        r"no token \(DefaultAzureCredential failed .*\)\. Run az login in a terminal, or set AZURE_OPENAI_API_KEY\.", str(fault)
    )
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("azure.identity").handlers == [entra.QUIET]


def test_a_login_that_was_tried_says_why_it_failed_and_no_secret(identity: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", KEY)
    tried = f"\tEnvironmentCredential: Authentication failed: AADSTS7000215: Invalid client secret {KEY} provided."
    identity.fails = identity.ClientAuthenticationError(NOT_LOGGED_IN.replace("\tAzureCli", f"{tried}\n\tAzureCli"))
    fault = refuse(at("http://127.0.0.1:9"), key=None)
    assert "EnvironmentCredential: Authentication failed: AADSTS7000215: Invalid client secret *** provided" in fault.message


def test_a_login_whose_server_is_away_is_tried_again(identity: Any):
    identity.fails = identity.ServiceRequestError("cannot reach login.microsoftonline.com")
    fault = refuse(at("http://127.0.0.1:9"), key=None)
    assert (fault.kind, fault.retry, fault.stops) == ("connection", True, False)


def test_a_run_says_it_once_before_its_first_row(identity: Any):
    identity.fails = identity.ClientAuthenticationError(NOT_LOGGED_IN)
    with Exact([reply(golden.AZURE.whole)]) as server, pytest.raises(BadKey, match="Run az login in a terminal"):
        asyncio.run(connect(at(server.base), None).ready(print))


def test_a_refused_token_is_forgotten_and_the_role_is_named(identity: Any):
    async def two(engine: Any) -> list[str]:
        words = []
        for _ in range(2):
            with pytest.raises(Fault) as caught:
                await hear(engine, request())
            words.append(f"{caught.value.message} {caught.value.raw}")
        return words

    body = {"error": {"code": "PermissionDenied", "message": f"The principal lacks the required data action, you sent {TOKEN}"}}
    with Exact([reply(body, 401)]) as server:
        words = run(two, replace(at(server.base), key_name="AZURE_OPENAI_API_KEY"), key=None)
    assert len(identity.asked) == 2
    assert all("refused the Entra ID login" in w and "Cognitive Services OpenAI User" in w for w in words)
    assert not [TOKEN[i : i + 8] for i in range(len(TOKEN) - 7) if TOKEN[i : i + 8] in "".join(words)]


def test_a_token_is_in_no_answer_and_no_repr(identity: Any):
    whole = {**golden.AZURE.whole, "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": f"you sent {TOKEN}"}}]}

    async def one(engine: Any) -> str:
        return repr((await hear(engine, request()), engine, vars(engine)))

    with Exact([reply(whole)]) as server:
        text = run(one, at(server.base), key=None)
    assert TOKEN[20:] not in text


def test_a_fetch_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "FETCH_S", 0.05)
    go = threading.Event()

    def fetch() -> Token:
        go.wait(5)
        return Token(Secret("x" * 20), time.time() + 3600)

    async def wait() -> None:
        with pytest.raises(Fault, match=r"gave no token within 0\.05 s"):
            await Tokens(fetch, "Entra ID").get()
        go.set()

    asyncio.run(wait())


def test_who_stops_waiting_ends_no_fetch_of_others():
    go, fetched = threading.Event(), list[int]()

    def fetch() -> Token:
        fetched.append(1)
        go.wait(5)
        return Token(Secret("x" * 20), time.time() + 3600)

    async def two() -> None:
        held = Tokens(fetch, "Entra ID")
        first, second = asyncio.ensure_future(held.get()), asyncio.ensure_future(held.get())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go.set()
        assert (await second).reveal() == "x" * 20

    asyncio.run(two())
    assert fetched == [1]


def test_a_fetch_that_fails_is_told_to_each_who_waits_and_to_nobody_else():
    go, unheard = threading.Event(), list[Any]()

    def fetch() -> Token:
        go.wait(5)
        raise Fault("auth", "nobody is logged in")

    async def three() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        held = Tokens(fetch, "Entra ID")
        waits = [asyncio.ensure_future(held.get()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[0].cancel()
        go.set()
        told = await asyncio.gather(*waits, return_exceptions=True)
        alone = asyncio.ensure_future(held.get())  # and it is tried again
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.gather(alone, return_exceptions=True)
        return told[1:]

    first, second = asyncio.run(three())
    assert (first.kind, str(first), str(second)) == ("auth", "nobody is logged in", "nobody is logged in")
    assert first is not second
    assert unheard == []


# -- what is told --------------------------------------------------------------------------------------------------------


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    return settings.endpoint(Route("azure", "dep"))


def test_a_login_is_told_as_a_key_is(identity: Any, resource: Endpoint, monkeypatch: pytest.MonkeyPatch):
    assert keys.resolve(resource) is None
    assert keys.describe_source(resource) == "no key, Entra ID login by azure-identity"
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    found = keys.resolve(resource)
    assert found is not None
    assert found.reveal() == KEY, "a key comes first"
    assert keys.describe_source(resource) == "key in AZURE_OPENAI_API_KEY"
    assert identity.asked == []


def test_a_variable_that_is_empty_is_no_key(identity: Any, resource: Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "")
    assert keys.resolve(resource) is None


def test_without_the_package_the_key_is_missing_and_the_login_is_named(without: None, resource: Endpoint):
    with pytest.raises(
        BadKey, match=r"AZURE_OPENAI_API_KEY is not set.*Or log in with Entra ID: pip install azure-identity, then az login\."
    ):
        keys.resolve(resource)
    assert keys.describe_source(resource) == "no AZURE_OPENAI_API_KEY"


def test_a_key_that_the_cell_names_is_needed(identity: Any, resource: Endpoint):
    named = settings.endpoint(Route("azure", "dep"), None, "MY_KEY")
    with pytest.raises(BadKey, match="MY_KEY is not set"):
        keys.resolve(named)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("https://r.openai.azure.com", True),
        ("https://r.services.ai.azure.com/openai/v1", True),
        ("https://r.cognitiveservices.azure.us", True),
        ("https://openai.azure.com.evil.example", False),
        ("https://evilopenai.azure.com", False),
        ("https://gateway.azure-api.net", False),
        ("http://r.openai.azure.com", False),
    ],
)
def test_a_projects_file_sends_a_token_to_azures_own_hosts_alone(
    identity: Any, address: str, may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    (project / ".env").write_text(f"AZURE_OPENAI_ENDPOINT={address}\n")
    monkeypatch.chdir(project)
    where = settings.endpoint(Route("azure", "dep"))
    if may:
        assert keys.resolve(where) is None
        assert any(".env" in line for line in keys.notices(where))
    else:
        with pytest.raises(BadSetting, match="nothing was sent"):
            keys.resolve(where)
        assert ", held back: " in keys.describe_source(where)
    assert keys.resolve(settings.endpoint(Route("azure", "dep"), "https://gateway.azure-api.net")) is None, "the user's own word counts"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('login = "okta"', "there is no 'okta'. It is one of entra"),
        ('options = { scope = "https://management.azure.com/.default" }', "scope should be one of Azure's"),
        ("options = { scope = 7 }", "scope should be one of Azure's"),
        ("login = 7", "login should be the name of a login"),
    ],
)
def test_a_login_or_a_scope_that_is_none_is_refused(text: str, words: str):
    with pytest.raises(BadSetting, match=re.escape(words)):
        settings.override(provider={"azure": __import__("tomllib").loads(text)})
    settings.reset()


def test_a_run_with_a_login(identity: Any):
    with Exact([reply(golden.AZURE.whole)]) as server:
        rows = holynb.infer(["a", "b"], "azure/dep", api_base=server.base, stream=False).wait().rows()
        assert {a.headers["authorization"] for a in server.asked} == {f"Bearer {TOKEN}"}
    assert [r.status for r in rows] == ["ok", "ok"]
    assert len(identity.asked) == 1
    assert azure.API_VERSION not in server.asked[0].path


def test_doctor_tells_it(identity: Any, monkeypatch: pytest.MonkeyPatch):
    def check() -> tuple[str, str]:
        return next((c.state, c.says) for c in doctor.checks() if c.name == "azure")

    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    assert check() == ("absent", "no key, Entra ID login by azure-identity, but no address")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    assert check() == ("works", "no key, Entra ID login by azure-identity")


@pytest.mark.parametrize("fails", [SystemExit(3), KeyError("x")])
def test_a_login_that_fails_in_its_own_way_is_said(identity: Any, fails: Any):
    identity.fails = fails
    fault = refuse(at("http://127.0.0.1:9"), key=None)
    assert (fault.kind, fault.stops) == ("auth", True)
    assert "Run az login in a terminal" in fault.message


@pytest.mark.parametrize("token", ["", None, 5, f"{TOKEN}\r\nx: y", f"{TOKEN}토큰"])
def test_what_is_no_token_is_never_sent(identity: Any, monkeypatch: pytest.MonkeyPatch, token: Any):
    given = identity.AccessToken(token, time.time() + 3600)
    monkeypatch.setattr(identity.DefaultAzureCredential, "get_token", lambda self, *scopes: given)
    with Exact([reply(golden.AZURE.whole)]) as server:
        fault = refuse(at(server.base), key=None)
        assert server.asked == []
    assert (fault.kind, fault.stops) == ("auth", True)
    assert TOKEN not in f"{fault.message} {fault.raw}"


@pytest.mark.parametrize("refused", [1, 9])
def test_a_token_that_ends_early_is_fetched_anew_in_the_middle_of_a_run(identity: Any, monkeypatch: pytest.MonkeyPatch, refused: int):
    """It was taken back, or this machine's clock is behind: the rows in flight are asked again with the next one, which is refused or not."""

    def answer(asked: Any, n: int) -> list[bytes]:
        return [reply({"error": {"code": "invalid", "message": "expired"}}, 401) if 4 <= n < 4 + refused else reply(golden.AZURE.whole)]

    async def rows(engine: Any) -> list[tuple[bool, bool]]:
        await asyncio.gather(*(hear(engine, request(row=i)) for i in range(4)))
        monkeypatch.setattr(tokens, "FRESH_S", -1.0)  # the token is an old one by now
        faults = []
        for i in range(2):
            try:
                await hear(engine, request(row=i))
            except Fault as fault:
                faults.append((fault.retry, fault.stops))
            monkeypatch.setattr(tokens, "FRESH_S", 60.0)
        return faults

    with Exact(answer) as server:
        faults = run(rows, at(server.base), key=None)
    assert faults == [(True, False), (False, True)][: 1 if refused == 1 else 2]
    assert len(identity.asked) == 2


def test_a_run_outlasts_its_token(identity: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "")
    settings.reset()
    identity.later = iter(range(1, 9))
    given = lambda self, *scopes: identity.AccessToken(f"{TOKEN}{next(identity.later)}", time.time() + 3600)  # noqa: E731
    monkeypatch.setattr(identity.DefaultAzureCredential, "get_token", given)
    monkeypatch.setattr(tokens, "FRESH_S", 0.0)

    def answer(asked: Any, n: int) -> list[bytes]:
        old = n >= 5 and asked.headers["authorization"].endswith("1")
        return [reply({"error": {"code": "invalid", "message": "expired"}}, 401) if old else reply(golden.AZURE.whole)]

    with Exact(answer) as server:
        ended = holynb.infer([f"row {i}" for i in range(40)], "azure/gpt-5.4", api_base=server.base).wait()
    assert {o.status for o in ended.rows()} == {"ok"}


def test_a_run_whose_first_token_is_refused_ends_at_once(identity: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "")
    settings.reset()
    with Exact([reply({"error": {"code": "PermissionDenied", "message": "no role"}}, 401)]) as server:
        with pytest.raises(InferError, match="Cognitive Services OpenAI User"):
            holynb.infer([f"row {i}" for i in range(40)], "azure/gpt-5.4", api_base=server.base).wait()
        assert len(server.asked) < 40, "only what was in flight"
    assert len(identity.asked) == 1
