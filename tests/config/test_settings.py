"""Settings: three layers, checked where they are read; routes and endpoints that follow from them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from holynb.config import settings
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.types import Route


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A working directory with no project above it, and nothing overridden."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    settings.reset()
    yield folder.parent
    settings.reset()


def config(home: Path, text: str) -> Path:
    path = home / "config.toml"
    path.write_text(text, "utf-8")
    return path


def error_line(call, *args, **kwargs) -> str:
    """The one line of a UserError."""
    with pytest.raises((BadSetting, BadRoute, BadOption)) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- home ----------------------------------------------------------------------------------------------------------------
def test_home_is_made_private(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "a" / "b"))
    assert settings.home() == tmp_path / "a" / "b"
    assert stat.S_IMODE(settings.home().stat().st_mode) == 0o700


def test_home_without_a_variable_is_the_platforms(tmp_path, monkeypatch):
    monkeypatch.delenv("HOLYNB_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.home().name == "holynb"
    assert tmp_path in settings.home().parents


def test_a_home_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "file" / "x"))
    assert "Set HOLYNB_HOME" in error_line(settings.home)


# -- layers --------------------------------------------------------------------------------------------------------------
def test_nothing_configured_is_the_embedded_model():
    assert settings.current() == settings.Settings()
    assert settings.route(None) == settings.route("  ") == Route("pool", "smollm2-135m")


def test_later_layers_win_field_by_field(home, project):
    config(
        home,
        'default = "sim/echo"\n[alias]\na = "sim/echo"\nb = "sim/echo"\n[provider.acme]\nbase = "https://one.example/v1"\nkey = "ACME_KEY"\n',
    )
    (project / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.holynb]\ndefault = "sim/stream"\n[tool.holynb.alias]\nb = "sim/stream"\n'
        '[tool.holynb.provider.acme]\nbase = "https://two.example/v1"\n'
    )
    now = settings.current()
    assert (now.default, now.alias) == ("sim/stream", {"a": "sim/echo", "b": "sim/stream"})
    assert now.provider["acme"] == {"base": "https://two.example/v1", "key": "ACME_KEY"}
    settings.override(default="sim/flaky", alias={"b": "sim/flaky"})
    assert settings.route(None).model == settings.route("b").model == "flaky"
    assert settings.current().origins["alias.b"] == "%config"
    settings.override(default=None, alias=None)
    assert settings.route("b").model == "stream"


def test_a_changed_file_is_read_again(home):
    path = config(home, 'default = "sim/echo"')
    assert settings.route().model == "echo"
    path.write_text('default = "sim/stream"')
    assert settings.route().model == "stream"
    assert settings.config_paths() == [path]
    path.unlink()
    assert settings.route().provider == "pool"


def test_a_pyproject_without_our_table_says_nothing(project):
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.ruff]\nline-length = 1\n')
    assert settings.current().default is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default = \nalias = 3", ["config.toml", "not valid TOML", "line 1"]),
        ("defalt = 'sim/echo'", ["config.toml", "'defalt'", "Did you mean default?"]),
        ("default = 3", ["default should be a route", "not a number"]),
        ("default = ''", ["default should be a route"]),
        ("alias = 'x'", ["alias should be a table"]),
        ("[alias]\nx = 1", ["alias.x should be a route"]),
        ("[price]\n'a/b' = 3", ["price.a/b should be a table"]),
        ("[provider.acme]\nbsae = 'https://x.example'", ["provider.acme", "'bsae'", "Did you mean base?"]),
        ("[provider.acme]\nbase = 3", ["provider.acme.base should be text"]),
        ("[provider.acme]\nbase = 'x.example/v1'", ["provider.acme.base should be an address", "starting with http:// or https://"]),
        ("[provider.acme]\nbase = 'https://x.example/v1?a=b'", ["should be an address"]),
        (
            "[provider.acme]\nkey = 'sk-abcdefghijklmnopqrstuvwx'",
            ["provider.acme.key should be the name of an environment variable", "ACME_API_KEY"],
        ),
        ("[provider.acme]\nkey_optional = 'yes'", ["key_optional should be true or false"]),
        ("[provider.acme]\nmodels = { a = 'long' }", ["provider.acme.models.a should be a context length"]),
        ("[provider.'a b']\nbase = 'https://x.example'", ["'a b' cannot be a provider's name, which is letters"]),
    ],
)
def test_what_does_not_hold_is_named_with_file_and_key(home, text, words):
    config(home, text)
    line = error_line(settings.current)
    assert "config.toml" in line
    assert all(word in line for word in words), line
    assert "sk-abc" not in line


def test_a_password_in_an_address_is_not_repeated(home):
    config(home, "[provider.acme]\nbase = 'https://me:hunter2@x.example/v1'")
    assert "hunter2" not in error_line(settings.current)


@pytest.mark.parametrize(
    "text",
    [
        "[provider.acme]\nbase = 'http://h/v1?key=SECRET'",
        "[provider.acme]\nbase = 'http://h/v1#SECRET'",
        "[provider.acme]\nbase = 'http://h v1/SECRET'",
        "[provider.acme]\nbase = 'http://[SECRET/v1'",
        "[provider.acme]\nbase = 'http://:SECRET@h/v1'",
        "[provider.acme]\nbase = 'http://h:0/SECRET'",
        "[provider.acme]\nbase = 'ftp://h/SECRET'",
        "[provider.acme]\nbase = 'SECRET'",
        "[provider.acme]\nbase = ['SECRET']",
        "[provider.acme]\nkey = 'SECRET?'",
        "[provider.acme]\nkey = { value = 'SECRET' }",
        "[provider.acme]\nkey_optional = 'SECRET'",
        "[provider.acme]\nmodels = 'SECRET'",
        "[provider.acme]\nmodels = { m = 'SECRET' }",
        "[provider]\nacme = 'SECRET'",
        "provider = 'SECRET'",
        "default = ['SECRET']",
        "[alias]\nfast = ['SECRET']",
        "price = 'SECRET'",
        "router = ['SECRET']",
    ],
)
def test_a_value_that_is_refused_is_not_repeated(home, text):
    """It may be a key, wherever it stands."""
    config(home, text)
    line = error_line(settings.current)
    assert "should be" in line or "holds a user" in line
    assert "SECRET" not in line


@pytest.mark.parametrize(
    "address", ["http://h/v1?key=SECRET", "http://h/v1#SECRET", "SECRET", "http://SECRET@h/v1", "SECRET://h", "http://h /SECRET"]
)
def test_an_address_that_is_refused_is_not_repeated(address, monkeypatch):
    for route in (Route("openai", "m"), Route("pool", "x"), Route("sim", "echo")):
        line = error_line(settings.endpoint, route, address)
        assert "--api-base" in line
        assert "SECRET" not in line
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert "SECRET" not in error_line(settings.endpoint, Route("openai", "m"))


def test_files_that_are_no_text_are_one_line(home, project):
    (home / "config.toml").write_bytes("default = 'sim/echo'".encode("utf-16"))
    assert "not UTF-8" in error_line(settings.current)
    (home / "config.toml").write_text("\ufeffdefault = 'sim/echo'", "utf-8")
    assert settings.route().model == "echo"
    (project / "pyproject.toml").write_text("tool = 3")
    assert "tool should be a table" in error_line(settings.current)
    (project / "pyproject.toml").write_text("[tool]\nholynb = 3")
    assert "tool.holynb should be a table" in error_line(settings.current)


def test_an_override_is_checked_before_it_counts():
    assert "%config: default should be a route" in error_line(settings.override, default=3)
    assert settings.current().default is None


# -- routes --------------------------------------------------------------------------------------------------------------
def test_a_route_an_alias_and_an_alias_of_an_alias(home):
    config(home, 'default = "fast"\n[alias]\nfast = "quick"\nquick = "openrouter/org/name"\n"my/own" = "sim/echo"')
    assert settings.route() == settings.route("fast") == Route("openrouter", "org/name")
    assert settings.route("openai/gpt-4.1") == Route("openai", "gpt-4.1")
    assert settings.route("my/own") == Route("sim", "echo")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("opneai/gpt-4.1", ["'opneai'", "Did you mean openai?"]),
        ("nowhere/x", ["'nowhere'", "[provider.nowhere]", "config.toml"]),
        ("openai", ["openai/MODEL"]),
        ("fsat", ["Did you mean fast?"]),
        ("openai/", ["is not a route"]),
        ("round", ["leads back to itself", "round → about → round"]),
    ],
)
def test_a_route_that_leads_nowhere(home, text, words):
    config(home, '[alias]\nfast = "sim/echo"\nround = "about"\nabout = "round"')
    line = error_line(settings.route, text)
    assert all(word in line for word in words), line


# -- endpoints -----------------------------------------------------------------------------------------------------------
def test_providers_that_ship():
    known = settings.providers()
    assert {"openai", "holysheep", "deepseek", "openrouter", "vllm", "ray", "sim", "pool"} <= set(known)
    e = settings.endpoint(Route("holysheep", "gpt-4.1"))
    assert (e.base_url, e.wire, e.key_name, e.key_optional) == ("https://api.holysheep.ai/v1", "openai", "HOLYSHEEP_API_KEY", False)
    assert e.key_page
    for name in ("sim", "pool"):
        e = settings.endpoint(Route(name, "x"))
        assert (e.wire, e.base_url, e.key_name) == (name, "", None)


def test_who_says_the_address(home, project, monkeypatch):
    route = Route("openai", "m")
    config(home, '[provider.openai]\nbase = "https://configured.example/v1/"')
    assert settings.endpoint(route).base_url == "https://configured.example/v1"
    (project / ".env").write_text("OPENAI_BASE_URL=https://dotenv.example/v1\n")
    assert settings.endpoint(route).base_url == "https://dotenv.example/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", " https://environment.example/v1 ")
    assert settings.endpoint(route).base_url == "https://environment.example/v1"
    settings.override(provider={"openai": {"base": "https://typed.example/v1"}})
    assert settings.endpoint(route).base_url == "https://typed.example/v1"
    assert settings.endpoint(route, "http://127.0.0.1:9/v1/").base_url == "http://127.0.0.1:9/v1"


def test_a_provider_of_ones_own(home, monkeypatch):
    config(
        home,
        '[provider.my-box]\nbase = "http://10.0.0.1:8000/v1"\n[provider.paid]\nbase = "https://x.example/v1"\nkey = "PAID_KEY"\noptions = { a = 1 }',
    )
    free, paid = settings.endpoint(Route("my-box", "m")), settings.endpoint(Route("paid", "m"))
    assert (free.wire, free.key_name, free.key_optional) == ("openai", "MY_BOX_API_KEY", True)
    assert (paid.key_name, paid.key_optional, paid.options["a"]) == ("PAID_KEY", False, 1)
    monkeypatch.setenv("MY_BOX_BASE_URL", "http://10.0.0.2/v1")
    assert settings.endpoint(Route("my-box", "m")).base_url == "http://10.0.0.2/v1"


def test_the_cells_key_is_needed():
    e = settings.endpoint(Route("vllm", "m"), api_key_name="MY_TOKEN")
    assert (e.key_name, e.key_optional) == ("MY_TOKEN", False)


def test_endpoints_that_cannot_be(home, monkeypatch):
    config(home, "[provider.acme]\nkey = 'ACME_KEY'")
    assert "ACME_BASE_URL" in error_line(settings.endpoint, Route("acme", "m"))
    assert "never the key itself" in error_line(settings.endpoint, Route("openai", "m"), None, "sk-abcdefghijklmnopqrstuvwx")
    assert "--api-base should be an address" in error_line(settings.endpoint, Route("openai", "m"), "localhost:8000")
    assert "vllm/x --api-base http://h/v1" in error_line(settings.endpoint, Route("pool", "x"), "http://h/v1")
    assert "no provider 'opena'" in error_line(settings.endpoint, Route("opena", "m"))
    monkeypatch.setenv("OPENAI_BASE_URL", "gateway")
    assert "OPENAI_BASE_URL should be an address" in error_line(settings.endpoint, Route("openai", "m"))


# -- the wire ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("route", "wire"),
    [
        ("openai/gpt-4.1-mini", "openai"),
        ("openai/o3-pro", "responses"),
        ("openai/o3-pro-2025-06-10", "responses"),
        ("openai/gpt-5-codex", "responses"),
        ("openai/a-model-that-nobody-knows", "openai"),
        ("azure/gpt-5-pro", "azure-responses"),
        ("azure/my-deployment", "azure"),
        ("openrouter/o3-pro", "openai"),
        ("anthropic/o3-pro", "anthropic"),
    ],
)
def test_a_model_without_chat_completions_is_asked_over_responses(route, wire, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    assert settings.endpoint(Route.parse(route)).wire == wire


def test_a_gateway_in_the_vendors_place_is_asked_as_before(monkeypatch):
    """It may know chat completions alone; what it says of a model is learned from its refusal."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.com/v1")
    assert settings.endpoint(Route("openai", "o3-pro")).wire == "openai"
    assert settings.endpoint(Route("openai", "o3-pro"), "https://api.openai.com/v1/").wire == "responses"


def test_the_wire_that_is_set_keeps_the_providers_addresses_and_headers(home, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    own = '[provider.mine]\nbase = "https://llm.example.com/v1"\nwire = "responses"'
    config(home, f'[provider.openai]\nwire = "responses"\n[provider.azure]\nwire = "responses"\n{own}')
    wires = [settings.endpoint(Route(name, "m")).wire for name in ("openai", "azure", "mine")]
    assert wires == ["responses", "azure-responses", "responses"]


def test_azures_version_is_the_options_or_the_environments(home, monkeypatch):
    def version(name: str = "azure"):
        return settings.endpoint(Route(name, "dep")).options.get("api_version")

    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    for name in settings.API_VERSIONS:
        monkeypatch.delenv(name, raising=False)
    assert version() is None
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-03-01-preview")
    assert (version(), version("openai")) == ("2025-03-01-preview", None)
    monkeypatch.setenv("AZURE_OPENAI_API_VERSION", "2024-10-21")
    assert version() == "2024-10-21"
    config(home, '[provider.azure.options]\napi_version = "v1"')
    assert version() == "v1"
