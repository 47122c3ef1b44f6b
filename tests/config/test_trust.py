"""A file of the project sends no key of the user's to a host that the user has not trusted; the user's own words always count."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest

from holynb import no_proxy
from holynb.config import keys, settings, trust
from holynb.config.trust import Grant
from holynb.engines import environment
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.secret import Secret
from holynb.types import Route

KEY = "sk-real-0123456789abcdef"
EVIL = "https://evil.example/v1"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of somebody else's, and in it the folder of the notebook; a real key in the environment."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings.reset()
    keys.forget()
    return folder.parent


def pyproject(project: Path, text: str) -> str:
    """`[tool.holynb]` of this text; `[x]` in it is `[tool.holynb.x]`."""
    path = project / "pyproject.toml"
    path.write_text("[tool.holynb]\n" + re.sub(r"(?m)^\[", "[tool.holynb.", text))
    return str(path)


def resolve(provider: str = "openai", api_base: str | None = None, api_key_name: str | None = None) -> str | None:
    secret = keys.resolve(settings.endpoint(Route(provider, "m"), api_base, api_key_name))
    return None if secret is None else secret.reveal()


def refused(provider: str = "openai", api_base: str | None = None, api_key_name: str | None = None) -> str:
    """The one line of the refusal."""
    with pytest.raises(BadSetting) as caught:
        resolve(provider, api_base, api_key_name)
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert "nothing was sent" in str(caught.value)
    return str(caught.value)


# -- addresses of a project's files ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["pyproject.toml", ".env"])
def test_an_address_of_the_project_gets_no_key_from_elsewhere(project: Path, place: str, home: Path) -> None:
    path = project / place
    path.write_text(f'[tool.holynb.provider.openai]\nbase = "{EVIL}"\n' if place == "pyproject.toml" else f"OPENAI_BASE_URL={EVIL}\n")
    line = refused()
    assert line.startswith(f"{path}, a project file, sets the address of openai")
    assert "%infer trust evil.example (" in line
    (home / "config.toml").write_text('[trust]\nhosts = ["evil.example"]\n')
    assert resolve() == KEY


@pytest.mark.parametrize("place", ["session", "keyring", "environment"])
def test_wherever_the_users_key_lies(project: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    pyproject(project, f'[provider.openai]\nbase = "{EVIL}"\n')
    if place != "environment":
        monkeypatch.delenv("OPENAI_API_KEY")
    if place == "session":
        keys.remember(settings.endpoint(Route("openai", "m")), Secret(KEY, "OPENAI_API_KEY"))
    if place == "keyring":
        monkeypatch.setattr(keys, "_from_keyring", lambda name: KEY)
    refused()


def test_a_key_that_is_missing_would_not_go_there_either(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    pyproject(project, f'[provider.openai]\nbase = "{EVIL}"\n')
    with pytest.raises(BadSetting, match="%infer trust"):
        keys.resolve(settings.endpoint(Route("openai", "m")))


def test_a_key_beside_its_address_goes_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".env").write_text("OPENAI_BASE_URL=https://team.example/v1\nOPENAI_API_KEY=the-teams-key-01\n")
    refused()  # the environment's key wins, and is not the file's
    monkeypatch.delenv("OPENAI_API_KEY")
    assert resolve() == "the-teams-key-01"
    pyproject(project, f'[provider.openai]\nbase = "{EVIL}"\n')
    (project / ".env").write_text("OPENAI_API_KEY=my-own-key-0123\n")
    refused()  # two files: this one's address is not that one's


def test_an_env_file_that_an_editor_read_into_the_environment_stays_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".env").write_text(f"OPENAI_BASE_URL={EVIL}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", EVIL)
    refused()
    (project / ".env").write_text(f"OPENAI_BASE_URL={EVIL}\nOPENAI_API_KEY={KEY}\n")
    assert resolve() == KEY, "both of them from the file"


@pytest.mark.parametrize("own", ["environment", "config", "session", "cell", "default"])
def test_what_the_user_says_is_not_asked_about(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    pyproject(project, 'default = "openai/m"\n[provider.openai]\nmodels = { m = 0 }\n')
    if own == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", "https://mine.example/v1")
    elif own == "config":
        (home / "config.toml").write_text('[provider.openai]\nbase = "https://mine.example/v1"\n')
    elif own == "session":
        settings.override(provider={"openai": {"base": "https://mine.example/v1"}})
    assert resolve("openai", "https://mine.example/v1" if own == "cell" else None) == KEY


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "holysheep", "deepseek", "openrouter", "OpenAI", "mine", "groq"])
def test_every_provider_is_held(project: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", KEY)
    pyproject(project, f'[provider.{name}]\nbase = "{EVIL}"\n')
    refused(name)


def test_the_users_own_gateway_is_held_too(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    (home / "config.toml").write_text('[provider.gateway]\nbase = "https://gateway.example/v1"\nkey = "GATEWAY_KEY"\n')
    assert resolve("gateway") == KEY
    (project / ".env").write_text(f"GATEWAY_BASE_URL={EVIL}\n")
    refused("gateway")


def test_a_server_without_a_key_is_asked_and_named(project: Path) -> None:
    path = pyproject(project, '[provider.mine]\nbase = "https://mine.example/v1"\n')
    assert resolve("mine") is None
    assert keys.notices(settings.endpoint(Route("mine", "m"))) == [f"mine is reached at mine.example, as {path}, a project file, says."]


@pytest.mark.parametrize(
    ("provider", "variable", "key"),
    [
        ("azure", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"),
        ("vllm", "VLLM_BASE_URL", "VLLM_API_KEY"),
        ("ray", "RAY_BASE_URL", "RAY_API_KEY"),
    ],
)
def test_providers_without_an_address_of_their_own_are_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, provider: str, variable: str, key: str
) -> None:
    monkeypatch.setenv(key, KEY)
    (project / ".env").write_text(f"{variable}=https://gpu.example:8443/v1\n")
    assert resolve(provider) == KEY
    (line,) = keys.notices(settings.endpoint(Route(provider, "m")))
    assert line == f"{provider} is reached at gpu.example:8443, as {project / '.env'}, a project file, says."


def test_keys_of_a_chain_are_held_where_no_key_of_their_own_is_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What botocore finds goes along as an access key and a session token, whatever signs it."""
    assert resolve("bedrock") is None
    for file in ("pyproject.toml", ".env"):
        if file == ".env":
            (project / "pyproject.toml").unlink()
            (project / file).write_text(f"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={EVIL}\n")
        else:
            pyproject(project, f'[provider.bedrock]\nbase = "{EVIL}"\n')
        refused("bedrock")
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
        refused("bedrock")
        monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9")
    assert resolve("bedrock") is None, "the user's own"
    assert settings.endpoint(Route("bedrock", "m")).base_url == "http://127.0.0.1:9"
    with monkeypatch.context() as patch:
        patch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
        assert settings.endpoint(Route("bedrock", "m")).base_url == ""
    monkeypatch.setenv("BEDROCK_BASE_URL", "http://127.0.0.1:8")
    assert settings.endpoint(Route("bedrock", "m")).base_url == "http://127.0.0.1:8"


def test_aws_keys_are_held_as_well(project: Path) -> None:
    assert resolve("sagemaker") is None
    pyproject(project, f'[provider.sagemaker]\nbase = "{EVIL}"\n')
    refused("sagemaker")
    pyproject(project, '[provider.sagemaker.options]\nregion = "x.evil.example/"\n')
    with pytest.raises(BadSetting, match="region should be the name of a region"):
        settings.current()


# -- other ways to a key ---------------------------------------------------------------------------------------------------
def test_a_variable_that_the_project_names_is_held(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    pyproject(project, '[provider.openai]\nkey = "AWS_SECRET_ACCESS_KEY"\n')
    assert "sets the key's variable" in refused()
    assert resolve("openai", None, "OPENAI_API_KEY") == KEY, "the cell names one itself"
    pyproject(project, '[provider.vllm]\nbase = "https://gpu.example/v1"\nkey = "AWS_SECRET_ACCESS_KEY"\n')
    refused("vllm")
    pyproject(project, '[provider.holysheep]\nkey = "OPENAI_API_KEY"\n')
    refused("holysheep")


def test_another_variable_of_the_same_provider_is_the_projects_to_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_TEAM", "the-teams-key-01")
    pyproject(project, '[provider.openai]\nkey = "OPENAI_API_KEY_TEAM"\n')
    assert resolve() == "the-teams-key-01"
    pyproject(project, f'[provider.openai]\nbase = "{EVIL}"\nkey = "OPENAI_API_KEY_TEAM"\n')
    refused()


def test_how_a_key_is_sent_is_held(project: Path) -> None:
    pyproject(project, '[provider.openai]\nwire = "my-wire"\n')
    refused()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[trust]\nhosts = ["evil.example"]', "[trust] is read only from your own config.toml"),
        ('[pool]\nenv = ["OPENAI_API_KEY"]', "[pool] is read only from your own config.toml"),
        ('[alias]\n"openai/gpt-4.1" = "mine/x"', "would send a route of openai elsewhere"),
        ('[provider.openai]\npage = "https://evil.example/keys"', "cannot be set by a project"),
        ("budget = 1000", "there is no setting 'budget'"),
        ("verify = false", "there is no setting 'verify'"),
        ('[provider.openai]\nproxy = "http://evil.example"', "has no 'proxy'"),
        ('[provider.openai]\nheaders = { a = "{{ key }}" }', "has no 'headers'"),
    ],
)
def test_what_a_projects_file_may_not_say(project: Path, text: str, words: str) -> None:
    pyproject(project, text)
    with pytest.raises(BadSetting) as caught:
        settings.current()
    assert words in str(caught.value)


def test_aliases_and_models_are_the_projects_to_say(project: Path) -> None:
    pyproject(project, '[alias]\nfast = "openai/gpt-4.1-mini"\n"my/own" = "sim/echo"\n')
    assert settings.route("my/own") == Route("sim", "echo")


def test_an_env_file_changes_neither_proxies_nor_certificates_nor_the_home(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    (project / ".env").write_text("HTTPS_PROXY=http://evil.example:1\nSSL_CERT_FILE=/evil.pem\nHOLYNB_HOME=/evil\nSSL_CERT_DIR=/evil\n")
    assert no_proxy.proxy_for("https://api.openai.com/v1") is None
    assert environment.named_certificates() == (None, None, 0.0)
    assert settings.home() == home


def test_a_home_that_an_editor_took_from_the_projects_env_file_trusts_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    evil = project / "home"
    evil.mkdir()
    (project / ".env").write_text(f"HOLYNB_HOME={evil}\n")
    monkeypatch.setenv("HOLYNB_HOME", str(evil))
    (evil / "config.toml").write_text('[trust]\nhosts = ["evil.example"]\n')
    with pytest.raises(BadSetting, match=r"\[trust\] is read only from your own"):
        settings.current()
    (evil / "config.toml").write_text(f'[provider.openai]\nbase = "{EVIL}"\n')
    trust.keep(evil, add=[Grant("openai", "evil.example:443", str(evil / "config.toml"))])
    refused()
    trust.keep(settings.own_home(), add=[Grant("openai", "evil.example:443", str(evil / "config.toml"))])
    assert (tmp_path / "data") in settings.own_home().parents
    assert resolve() == KEY


# -- plain http ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["llm.example", "8.8.8.8", "0x7f.1", "2130706433", "127.0.0.1.evil.example", "172.32.0.1", "gpu01"])
def test_the_key_of_a_hosted_provider_crosses_no_network_in_the_clear_for_a_project(project: Path, home: Path, host: str) -> None:
    (home / "config.toml").write_text(f'[trust]\nhosts = ["{host}:80"]\n')
    (project / ".env").write_text(f"OPENAI_BASE_URL=http://{host}/v1\n")
    assert "over plain http" in refused()
    (project / ".env").write_text(f"OPENAI_BASE_URL=http://{host}/v1\nAZURE_OPENAI_ENDPOINT=http://{host}\n")
    assert "over plain http" in refused("azure")


@pytest.mark.parametrize("host", ["llm.example", "10.1.2.3", "172.16.0.9", "192.168.1.5", "169.254.1.1", "box.local", "[fd00::1]"])
@pytest.mark.parametrize("own", ["environment", "config", "cell"])
def test_the_user_is_warned(home: Path, monkeypatch: pytest.MonkeyPatch, host: str, own: str) -> None:
    base = f"http://{host}:8000/v1"
    if own == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", base)
    elif own == "config":
        (home / "config.toml").write_text(f'[provider.openai]\nbase = "{base}"\n')
    endpoint = settings.endpoint(Route("openai", "m"), base if own == "cell" else None)
    keys.resolve(endpoint)
    assert keys.notices(endpoint) == [f"The key of openai goes to {host}:8000 over plain http: anyone on the network can read it."]


@pytest.mark.parametrize("host", ["10.1.2.3", "172.31.255.1", "192.168.1.5", "169.254.1.1", "box.local"])
def test_a_trusted_address_on_a_private_network_is_warned_of(project: Path, home: Path, host: str) -> None:
    (project / ".env").write_text(f"OPENAI_BASE_URL=http://{host}:8000/v1\n")
    assert f"%infer trust {host}:8000" in refused()
    (home / "config.toml").write_text(f'[trust]\nhosts = ["{host}:8000"]\n')
    assert resolve() == KEY
    assert "over plain http" in keys.notices(settings.endpoint(Route("openai", "m")))[0]


@pytest.mark.parametrize("base", ["http://127.0.0.1:9/v1", "http://localhost:9/v1", "http://[::1]:9/v1", "https://llm.example/v1"])
def test_nothing_is_said_of_this_machine_and_of_https(base: str) -> None:
    assert keys.notices(settings.endpoint(Route("openai", "m"), base)) == []


def test_nothing_is_said_where_no_key_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys.notices(settings.endpoint(Route("vllm", "m"), "http://10.0.0.1:8000/v1")) == []
    monkeypatch.setenv("VLLM_API_KEY", "EMPTY")
    assert keys.notices(settings.endpoint(Route("vllm", "m"), "http://10.0.0.1:8000/v1")) == []


# -- what is kept ----------------------------------------------------------------------------------------------------------
def trusted(home: Path, *grants: Grant) -> None:
    trust.keep(home, add=grants)


def test_trust_is_of_a_provider_a_host_and_a_file(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyproject(project, '[provider.openai]\nbase = "https://llm.example:8443/v1"\n')
    right = Grant("openai", "llm.example:8443", path)
    for wrong in (
        Grant("anthropic", right.host, path),
        Grant("openai", "llm.example:443", path),
        Grant("openai", "example:8443", path),
        Grant("openai", right.host, str(project / ".env")),
    ):
        trusted(home, wrong)
        refused()
    trusted(home, right)
    assert resolve() == KEY
    pyproject(project, '[provider.openai]\nbase = "https://llm.example:8444/v1"\n')
    refused()


def test_a_host_of_the_config_without_a_port_is_that_of_https(project: Path, home: Path) -> None:
    (home / "config.toml").write_text('[trust]\nhosts = ["llm.example"]\n')
    pyproject(project, '[provider.openai]\nbase = "https://LLM.example/v1"\n')
    assert resolve() == KEY
    pyproject(project, '[provider.openai]\nbase = "https://llm.example:8443/v1"\n')
    refused()
    pyproject(project, '[provider.openai]\nbase = "https://sub.llm.example/v1"\n')
    refused()


def test_the_file_is_private_whole_and_read_again(home: Path) -> None:
    odd = Grant("openai", "llm.example:443", '/a "project" \\ of é\x01\x7f\U0001f600/.env')
    trusted(home, odd)
    assert stat.S_IMODE((home / "trust.toml").stat().st_mode) == 0o600
    assert trust.grants(home) == (odd,)
    threads = [threading.Thread(target=trusted, args=(home, Grant("p", f"h{i}:1", "/f"))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(trust.grants(home)) == 9, "kernels that write at once lose nothing"
    assert [p.name for p in home.glob(".trust-*")] == []


@pytest.mark.parametrize("text", ["trusted = 3", "[[trusted]]\nprovider = 'openai'", "no toml", "\xff"])
def test_a_file_that_does_not_parse_trusts_nothing_and_says_so(project: Path, home: Path, text: str) -> None:
    (home / "trust.toml").write_bytes(text.encode("latin-1"))
    pyproject(project, f'[provider.openai]\nbase = "{EVIL}"\n')
    with pytest.raises(BadSetting, match=r"trust\.toml cannot be read.*Delete it"):
        resolve()


@pytest.mark.parametrize("value", ["'evil.example'", "[3]", "['']", "['https://x.example']", "['*']", "['x.example:']"])
def test_hosts_that_are_none_are_named(home: Path, value: str) -> None:
    (home / "config.toml").write_text(f"[trust]\nhosts = {value}\n")
    with pytest.raises(BadSetting, match=r"trust\.hosts should be a list of hosts"):
        settings.current()


# -- words that do not show what they refuse ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value",
    [
        "'https://x.example/v1?key=hunter2-hunter2'",
        "'https://x.example/v1#hunter2-hunter2'",
        "'https://me:hunter2-hunter2@x.example/v1'",
        "'https://x.example\\hunter2-hunter2@y.example'",
        "'x.example?hunter2-hunter2'",
        "'sk-hunter2-hunter2-hunter2'",
        "['sk-hunter2-hunter2-hunter2']",
    ],
)
def test_an_address_that_is_refused_is_not_repeated(home: Path, value: str) -> None:
    (home / "config.toml").write_text(f"[provider.openai]\nbase = {value}\n")
    with pytest.raises(BadSetting) as caught:
        settings.current()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "default = ['sk-hunter2-hunter2-hunter2']",
        "[alias]\nx = ['sk-hunter2-hunter2-hunter2']",
        "[provider.openai]\nkey = ['sk-hunter2-hunter2-hunter2']",
        "[provider.openai]\nkey = 'sk-hunter2-hunter2-hunter2'",
        "[provider.openai]\nkey_optional = 'sk-hunter2-hunter2-hunter2'",
        "provider = { openai = 'sk-hunter2-hunter2-hunter2' }",
        "[trust]\nhosts = ['sk-hunter2?hunter2-hunter2']",
        "default = 'sk-hunter2-hunter2-hunter2'",
        "[alias]\nfast = 'sk-hunter2-hunter2-hunter2'\n",
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)
    with pytest.raises((BadSetting, BadRoute)) as caught:
        settings.current()
        settings.route("fast" if "alias" in text else None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "base", ["https://api.openai.com\\@evil.example/v1", "https://h ost/v1", "https://h\tost/v1", "ftp://h/v1", "https://h:0/v1"]
)
def test_addresses_that_parsers_read_in_two_ways_are_refused(base: str) -> None:
    with pytest.raises(BadOption, match="--api-base"):
        settings.endpoint(Route("openai", "m"), base)
