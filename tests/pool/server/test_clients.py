"""Named tokens: who may ask over a pool's port, and that no day's limit is passed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import unicodedata
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fake import Pool, Pools

from holynb import cli, port_tokens, port_usage
from holynb.errors import BadOption
from holynb.pool.server import clients
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.clients import Clients
from holynb.ui.commands import pool as command

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}


def test_only_hashes_are_kept_and_for_their_owner_alone(tmp_path: Path) -> None:
    token = port_tokens.add(tmp_path / "home", "ann", 100)
    file = port_tokens.path(tmp_path / "home")
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    async def follow() -> None:
        known = Clients(tmp_path / "home")
        assert await known.name_of(token.encode()) == "ann"
        assert await known.name_of(token.encode()[:-1]) is None
        assert await known.name_of(b"") is None
        port_tokens.remove(tmp_path / "home", "ann")
        assert await known.name_of(token.encode()) is None
        await known.close()

    asyncio.run(follow())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"tokens": [1]}', '{"tokens": [{"name": "x"}]}', '{"tokens": [{"name": "x", "sha256": 7}]}']
)
def test_a_file_that_is_none_of_ours_lets_nobody_in(tmp_path: Path, text: str) -> None:
    token = port_tokens.add(tmp_path, "ann")

    async def follow() -> None:
        known = Clients(tmp_path)
        assert await known.name_of(token.encode()) == "ann"
        port_tokens.path(tmp_path).unlink()
        port_tokens.path(tmp_path).write_text(text)
        assert await known.name_of(token.encode()) is None
        await known.close()

    asyncio.run(follow())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.floats(0, 1)), max_size=40))
def test_no_limit_is_passed_in_any_order(steps: list[tuple[bool, int, float]]) -> None:
    """Requests begin and end in any order, each using any part of what it held: used and held together never pass the limit, and nothing is lost."""

    async def follow() -> None:
        known = Clients()
        known._by_digest = {"d": port_tokens.PortToken("ann", "d", 100)}
        held: list[clients.Hold] = []
        used = 0
        for begins, tokens, share in steps:
            if begins:
                room = 100 - used - sum(h.tokens for h in held)
                try:
                    held.append(await known.hold("ann", tokens))
                except ApiError as exc:
                    assert tokens > room
                    assert exc.status == 429
                    never = tokens > 100 - used
                    assert exc.code == ("insufficient_quota" if never else "rate_limit_exceeded"), (
                        "others under way end; a day's use does not"
                    )
                    assert never or int((exc.headers or {})["retry-after"]) == 2
                    assert 1 <= int((exc.headers or {})["retry-after"]) <= 25 * 3600
                else:
                    assert tokens <= room
            elif held:
                hold = held.pop()
                spent = int(hold.tokens * share)
                hold.settle(spent)
                hold.settle(spent)  # twice is once
                used += spent
        assert known.figures() == [{"name": "ann", "used": used, "per_day": 100}]
        assert used <= 100

    asyncio.run(follow())


def test_a_day_is_counted_over_pools_and_restarts_and_begins_anew_at_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port_tokens.add(tmp_path, "ann", 100)

    class Tomorrow(date):
        @classmethod
        def today(cls) -> Tomorrow:
            return cls(2031, 1, 1)

    async def follow() -> None:
        one, other = Clients(tmp_path), Clients(tmp_path)
        for known, tokens in ((one, 30), (other, 20)):
            await known.refresh()
            (await known.hold("ann", tokens)).settle(tokens)
            await known.write()
        third = Clients(tmp_path)
        await third.refresh()
        assert third.figures()[0]["used"] == 50
        with pytest.raises(ApiError, match="50 are used, and this request may take 51"):
            await other.hold("ann", 51)
        monkeypatch.setattr(clients, "date", Tomorrow)
        await other.refresh()
        assert other.figures()[0]["used"] == 0
        (await other.hold("ann", 100)).settle(1)
        for known in (one, other, third):
            await known.close()

    today = date.today().isoformat()
    asyncio.run(follow())
    assert port_usage.by_day(tmp_path, "2000-01-01") == {"ann": {today: 50, "2031-01-01": 1}}
    assert stat.S_IMODE((tmp_path / "pool-usage.sqlite").stat().st_mode) == 0o600


def test_a_locked_file_stops_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """Another process holds the file: requests are counted meanwhile, the loop goes on, and the end writes what is left, once."""
    port_tokens.add(tmp_path, "ann", 100)

    async def follow() -> None:
        known = Clients(tmp_path)
        await known.refresh()
        (await known.hold("ann", 10)).settle(10)
        with closing(sqlite3.connect(port_usage.path(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing, turns = asyncio.create_task(known.write(0.2)), 0
            while not writing.done():
                (await known.hold("ann", 1)).settle(1 if turns < 5 else 0)
                turns += 1
                assert known.figures()[0]["used"] == 10 + min(turns, 5), "in the file, on its way or neither"
                await asyncio.sleep(0)
            assert turns > 20, "the loop goes on"
            other.execute("ROLLBACK")
        await known.close()

    asyncio.run(follow())
    assert port_usage.by_day(tmp_path, date.today().isoformat()) == {"ann": {date.today().isoformat(): 15}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pools = Pools(tmp_path_factory.mktemp("clients"))
    yield pools.start("--port", "0")
    pools.end()


def asked(pool: Pool, token: str | None, body: Any = None, path: str = "/v1/chat/completions") -> tuple[int, dict[str, str], Any]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", pool.record.port or 0, timeout=20)
    try:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read().decode()
        return answer.status, dict(answer.getheaders()), json.loads(raw) if raw.startswith("{") else raw
    finally:
        connection.close()


def test_a_named_token_asks_until_its_day_is_used_and_is_told_of_nobody_else(served: Pool) -> None:
    ann, bob = port_tokens.add(served.home, "ann", 40), port_tokens.add(served.home, "bob")
    status, _, answer = asked(served, ann, CHAT)
    assert status == 200
    spent = answer["usage"]["total_tokens"]
    assert asked(served, ann, {**CHAT, "stream": True})[0] == 200
    served.wait(lambda: {c["name"]: c["used"] for c in served.ask("/health")[1]["clients"]} == {"ann": 2 * spent, "bob": 0})
    status, headers, answer = asked(served, ann, {**CHAT, "max_tokens": 40})
    assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
    assert f"{2 * spent} are used" in answer["error"]["message"]
    assert int(headers["retry-after"]) > 0
    assert asked(served, bob, {**CHAT, "max_tokens": 40})[0] == 200
    assert asked(served, served.record.token, {**CHAT, "max_tokens": 40})[0] == 200, "its owner has no limit"
    assert asked(served, ann, path="/metrics")[0] == 403
    assert asked(served, ann, path="/health")[2] == {"status": "ok"}
    assert f'holynb_client_tokens_today{{client="ann"}} {2 * spent}' in served.ask("/metrics")[1]
    port_tokens.remove(served.home, "ann")
    status, _, answer = asked(served, ann, CHAT)
    assert status == 401
    assert ann not in json.dumps(answer)
    assert not [
        f for f in served.home.rglob("*") if f.is_file() and (ann in (text := f.read_bytes().decode(errors="replace")) or bob in text)
    ]


def test_an_expired_token_is_refused_with_the_day_it_ended(tmp_path: Path) -> None:
    past = (datetime.now().astimezone() - timedelta(days=1)).isoformat(timespec="seconds")
    ended, kept = port_tokens.add(tmp_path, "ann", 100, past), port_tokens.add(tmp_path, "bob", None, past.replace("20", "29", 1))

    async def follow() -> None:
        known = Clients(tmp_path)
        with pytest.raises(ApiError, match=f"The token ann expired on {past[:10]}") as caught:
            await known.name_of(ended.encode())
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
        assert await known.name_of(kept.encode()) == "bob"
        port_tokens.change(tmp_path, ["ann"], lambda t: replace(t, expires=""))
        assert await known.name_of(ended.encode()) == "ann"
        await known.close()

    asyncio.run(follow())


def test_a_file_without_ends_is_one_that_an_earlier_pool_reads(tmp_path: Path) -> None:
    port_tokens.add(tmp_path, "ann", 100)
    assert set(json.loads(port_tokens.path(tmp_path).read_text())["tokens"][0]) == {"name", "sha256", "tokens_per_day", "added"}


def test_the_command(home: Path) -> None:
    text, data = command.run(["token", "add", "Kim.민지", "--tokens-per-day", "50,000"], print)
    token = data[0]["token"]
    assert text.splitlines()[0] == f"Kim.민지 {token}"
    assert "Not shown again (50,000 tokens a day)" in text
    assert [(t.name, t.sha256) for t in port_tokens.read(home)] == [("Kim.민지", port_tokens.digest(token.encode()))]
    text, data = command.run(["token", "list"], print)
    assert "Kim.민지" in text
    assert token not in text
    today = date.today()
    assert data == [
        {"name": "Kim.민지", "tokens_per_day": 50_000, "added": today.isoformat(), "expires": "", "used": {today.isoformat(): 0}}
    ]
    days = [(today - timedelta(days=i)).isoformat() for i in range(3)]
    port_usage.add(home, {(days[0], "Kim.민지"): 5, (days[2], "Kim.민지"): 1200, ("2001-01-01", "Kim.민지"): 7}, days[0])
    text, data = command.run(["token", "list", "--days", "3"], print)
    assert text.splitlines()[-1].split()[-4:] == ["1,205", "5", "0", "1,200"]
    assert data[0]["used"] == dict(zip(days, (5, 0, 1200), strict=True))
    assert command.run(["token", "remove", "Kim.민지"], print)[0] == "Kim.민지's token is removed; pools refuse it from now on."
    text, data = command.run(["token", "list", "--days", "3"], print)
    assert text.splitlines()[-1].split() == ["Kim.민지", "removed", "1,205", "5", "0", "1,200"]
    assert data[0]["added"] is None


def test_a_semester_ends_and_limits_go_for_several_at_once(home: Path, tmp_path: Path) -> None:
    command.run(["token", "add", "ann", "bob", "--tokens-per-day", "500", "--expires", "120d"], print)
    day = (date.today() + timedelta(days=120)).isoformat()
    assert [t.expires[:10] for t in port_tokens.read(home)] == [day, day]
    text, data = command.run(["token", "list"], print)
    assert "expires" in text.splitlines()[0]
    assert day in text
    assert data[0]["expires"].startswith(day)
    text, _ = command.run(["token", "set", "ann", "bob", "--tokens-per-day", "none", "--expires", "none"], print)
    assert text.splitlines() == ["ann has no limit from now on.", "bob has no limit from now on."]
    assert [(t.tokens_per_day, t.expires) for t in port_tokens.read(home)] == [(None, "")] * 2
    (tmp_path / "names.txt").write_text("ann\nbob\n")
    command.run(["token", "set", "--file", str(tmp_path / "names.txt"), "--tokens-per-day", "5"], print)
    with pytest.raises(Exception, match="There is no token eve"):
        command.run(["token", "remove", "ann", "eve"], print)
    assert [t.tokens_per_day for t in port_tokens.read(home)] == [5, 5], "none is removed where one is not there"
    command.run(["token", "remove", "--file", str(tmp_path / "names.txt")], print)
    assert port_tokens.read(home) == []
    past = (datetime.now().astimezone() - timedelta(hours=1)).isoformat(timespec="seconds")
    port_tokens.add(home, "old", 5, past)
    assert command.run(["token", "list"], print)[0].splitlines()[-1].split()[1] == "expired"


def test_a_class_is_added_from_a_file_and_added_again_keeps_its_tokens(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\ufeffminji\r\n\r\n박민지\r\nx.y@school.kr", encoding="utf-8")
    assert cli.main(["pool", "token", "add", "--file", str(names), "--tokens-per-day", "500"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split(" ") for line in out.splitlines()]
    assert [name for name, _ in lines] == ["minji", "박민지", "x.y@school.kr"]
    assert [port_tokens.digest(token.encode()) for _, token in lines] == [t.sha256 for t in port_tokens.read(home)]
    assert err.startswith("Not shown again (500 tokens a day)")
    names.write_text("minji\nlate\n", encoding="utf-8")
    assert cli.main(["pool", "token", "add", "--file", str(names)]) == 0
    out, err = capsys.readouterr()
    assert [line.split(" ")[0] for line in out.splitlines()] == ["late"], "a file of tokens gets nothing else"
    assert err.startswith("Kept as they are, for they have a token: minji.")
    assert cli.main(["pool", "token", "add", "--file", str(names)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["pool", "token", "add", "one"]) == 0
    assert capsys.readouterr().out.startswith("one hnb_"), "one alone is said as several are"
    assert command.run(["token", "set", "minji", "--tokens-per-day", "800"], print)[0] == "minji has 800 tokens a day from now on."
    assert {t.name: t.tokens_per_day for t in port_tokens.read(home)}["minji"] == 800
    assert port_tokens.read(home)[0].sha256 == port_tokens.digest(lines[0][1].encode())
    names.write_text("later\n\nDora E.\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"names\.txt, line 3: .*not 'Dora E\.'\. Nothing was changed\."):
        command.run(["token", "add", "--file", str(names)], print)
    assert "later" not in {t.name for t in port_tokens.read(home)}


def test_what_looks_alike_is_one_name(home: Path, tmp_path: Path) -> None:
    """A Mac writes Hangul and accents in parts."""
    apart, whole = unicodedata.normalize("NFD", "홍길동"), "홍길동"
    assert apart != whole
    token = command.run(["token", "add", apart], print)[1][0]["token"]
    for name in (apart, whole):
        with pytest.raises(Exception, match="There is a token"):
            command.run(["token", "add", name], print)
    assert [t.name for t in port_tokens.read(home)] == [whole]
    (tmp_path / "names.txt").write_text(f"{whole}\n{apart}\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"홍길동 stands 2 times \(.*line 1, .*line 2\)"):
        command.run(["token", "add", "--file", str(tmp_path / "names.txt")], print)
    command.run(["token", "add", unicodedata.normalize("NFD", "José")], print)
    command.run(["token", "set", apart, "--tokens-per-day", "5"], print)
    assert [(t.name, t.tokens_per_day) for t in port_tokens.read(home)] == [(whole, 5), ("José", None)]
    text = port_tokens.path(home).read_text(encoding="utf-8")
    port_tokens.path(home).write_text(text.replace(whole, apart), encoding="utf-8")  # as an earlier version wrote it
    assert port_tokens.read(home)[0].name == whole
    command.run(["token", "remove", apart], print)
    assert [t.name for t in port_tokens.read(home)] == ["José"]
    assert token not in text


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("ann\n민지\n".encode("cp949"), "not in UTF-8, but in another encoding, such as CP949.*Save it as UTF-8"),
        ("ann\n민지\n".encode("utf-16"), "not in UTF-8, but in UTF-16. Save it as UTF-8"),
        ("ann\nbob\n".encode("utf-16-le"), "not in UTF-8, but in UTF-16"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"dup\nother\ndup\n", r"dup stands 2 times \(.*line 1, .*line 3\)"),
    ],
)
def test_a_file_of_names_that_cannot_be_taken_makes_no_token(home: Path, tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "names.txt").write_bytes(raw)
    for word in ("add", "remove"):
        with pytest.raises(BadOption, match=says):
            command.run(["token", word, "--file", str(tmp_path / "names.txt")], print)
    assert port_tokens.read(home) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add"], "takes a name, or several, or --file"),
        (["add", "--file", "/nowhere/names.txt"], "cannot be read"),
        (["add", "new", "a b"], "1 to 64 letters"),
        (["set", "ann"], "takes --tokens-per-day"),
        (["set", "--tokens-per-day", "5"], "takes a name, or several, or --file"),
        (["remove"], "takes a name, or several, or --file"),
        (["add", "new", "new"], r"new stands 2 times \(on the line, on the line\)"),
        (["add", "new", "--tokens-per-day", "5,0"], "whole number from 1 on, or none, not '5,0'"),
        (["add", "new", "--tokens-per-day", "1,00,000"], "whole number"),
        (["add", "new", "--expires", "soon"], "--expires takes a duration such as 30d"),
        (["add", "new", "--expires", "99999999d"], "--expires takes a duration such as 30d"),
        (["remove", "ann", "--expires", "1d"], "--expires does not belong to pool token remove"),
        (["set", "bob", "--tokens-per-day", "5"], "There is no token bob"),
        (["list", "--file", "x"], "--file does not belong to pool token list"),
        (["add", "a b"], "1 to 64 letters"),
        (["add", 'x"}'], "1 to 64 letters"),
        (["add", "ann"], "There is a token ann already"),
        (["add", "x", "--tokens-per-day", "0"], "whole number from 1"),
        (["add", "x", "--tokens-per-day", "many"], "whole number"),
        (["remove", "bob"], "There is no token bob. There are: ann"),
        (["remove", "ann", "--tokens-per-day", "1"], "--tokens-per-day does not belong to pool token remove"),
        (["list", "ann"], "takes no name"),
        (["list", "--days", "32"], "--days takes a whole number from 1 to 31"),
        (["add", "new", "--days", "2"], "--days does not belong to pool token add"),
        (["ad", "x"], "Did you mean add"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(home: Path, words: list[str], says: str) -> None:
    port_tokens.add(home, "ann")
    before = port_tokens.path(home).read_bytes()
    with pytest.raises(Exception, match=says) as caught:
        command.run(["token", *words], print)
    assert "\n" not in str(caught.value)
    assert port_tokens.path(home).read_bytes() == before


def test_a_token_is_told_of_itself_alone(served: Pool) -> None:
    ann, bob = port_tokens.add(served.home, "ann.own", 4000, "2999-01-01T00:00:00+00:00"), port_tokens.add(served.home, "bob.own")
    status, _, answer = asked(served, ann, CHAT)
    assert status == 200
    spent = answer["usage"]["total_tokens"]
    status, _, usage = asked(served, ann, path="/v1/usage")
    assert status == 200
    assert 0 < usage.pop("resets_in_s") <= 25 * 3600
    assert usage == {
        "object": "usage",
        "name": "ann.own",
        "tokens_today": spent,
        "tokens_per_day": 4000,
        "tokens_left": 4000 - spent,
        "tokens_in_flight": 0,
        "expires": "2999-01-01T00:00:00+00:00",
    }
    unlimited = asked(served, bob, path="/v1/usage")[2]
    assert (unlimited["tokens_today"], unlimited["tokens_per_day"], unlimited["tokens_left"]) == (0, None, None)
    owner = asked(served, served.record.token, path="/v1/usage")[2]
    assert (owner["name"], owner["tokens_today"], owner["tokens_per_day"]) == (None, None, None)
    assert asked(served, "hnb_of-nobody", path="/v1/usage")[0] == 401
    status, _, answer = asked(served, ann, path="/metrics")
    assert (status, answer["error"]["code"]) == (403, "insufficient_permissions")
    assert "needs the pool's own token. What ann.own has used: GET /v1/usage" in answer["error"]["message"]


def test_a_student_sees_what_is_left(served: Pool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = port_tokens.add(served.home, "kim", 5000)
    spent = asked(served, token, CHAT)[2]["usage"]["total_tokens"]
    base = f"http://127.0.0.1:{served.record.port}/v1"
    (home / "config.toml").write_text(f'default = "school/class"\n[provider.school]\nbase = "{base}"\nkey = "SCHOOL_TOKEN"\n')
    line = f"school is a server that your settings name, at {base}. Ask it: %%infer school/class"
    used = f"  kim: {spent} of 5,000 tokens used today, {5000 - spent:,} left; all are back in "
    monkeypatch.setenv("SCHOOL_TOKEN", token)
    for words in (["list"], ["status", "school"], ["status", "school/class"]):
        text = command.run(words, print)[0].splitlines()
        assert text[0] == line
        assert text[1].startswith(used)
    port_tokens.change(served.home, ["kim"], lambda t: replace(t, tokens_per_day=None, expires="2999-01-01T00:00:00+00:00"))
    assert f"  kim: {spent} tokens used today, without a limit. It expires on 2999-01-01" in command.run(["list"], print)[0]
    port_tokens.change(served.home, ["kim"], lambda t: replace(t, expires="2001-01-01T00:00:00+00:00"))
    assert "refuses the key in SCHOOL_TOKEN" in command.run(["list"], print)[0]
    monkeypatch.delenv("SCHOOL_TOKEN")
    assert "SCHOOL_TOKEN is not set" in command.run(["list"], print)[0]


@pytest.mark.parametrize(
    ("used", "limit", "request_", "says"),
    [
        (0, 100, (150, 30, 1), r"An answer of 70 tokens still fits today \(--max-tokens 70\)"),
        (0, 100, (150, 30, 2), r"An answer of 35 tokens still fits today \(--max-tokens 35\)"),
        (90, 100, (50, 20, 1), "They come back at midnight, in .*; whoever runs the pool can raise the limit"),
        (100, 100, (50, 20, 1), "They come back at midnight"),
        (0, 100, (150, 100, 1), "Its prompt alone is more than a day's"),
        (90, 100, (50, None, 1), "They come back at midnight"),
    ],
)
def test_a_spent_day_says_what_helps(used: int, limit: int, request_: tuple[int, int | None, int], says: str) -> None:
    async def follow() -> None:
        known = Clients()
        known._by_digest = {"d": port_tokens.PortToken("ann", "d", limit)}
        (await known.hold("ann", used)).settle(used)
        with pytest.raises(ApiError, match=says) as caught:
            await known.hold("ann", *request_)
        assert ("--max-tokens" in str(caught.value)) == ("fits" in says), "a shorter answer is advised where one fits"
        await known.close()

    asyncio.run(follow())
