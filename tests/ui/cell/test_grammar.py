"""The line of a cell: words, bindings, options, keys."""

from __future__ import annotations

import pytest

from holynb.config.options import TABLE, Options
from holynb.errors import BadKey, BadOption
from holynb.ui.cell.grammar import CellLine, cell_help, parse, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sim/echo -n 5", ["sim/echo", "-n", "5"]),
        (r"--file C:\new\rows.csv", ["--file", r"C:\new\rows.csv"]),
        (r'--file "C:\my files\rows.csv"', ["--file", r"C:\my files\rows.csv"]),
        (r'--file "C:\my files\"', ["--file", "C:\\my files\\"]),
        ("--system don't", ["--system", "don't"]),
        ('--system "don\'t" -q', ["--system", "don't", "-q"]),
        ("--system 'You're kind' -q", ["--system", "You're kind", "-q"]),
        (r'--system "say \"hi\" now"', ["--system", 'say "hi" now']),
        ('--system="two words"', ["--system=two words"]),
        ("-p 'stop=[\"a b\"]'", ["-p", 'stop=["a b"]']),
        ("--where \"kind == 'x' and n > 3\"", ["--where", "kind == 'x' and n > 3"]),
        ('--system ""', ["--system", ""]),
        ('--system "open', ["--system", '"open']),
        ("", []),
    ],
)
def test_split_keeps_paths_and_apostrophes(line: str, words: list[str]) -> None:
    assert split(line) == words


@pytest.mark.parametrize(
    ("line", "name", "show", "route"),
    [
        ("x << sim/echo", "x", False, "sim/echo"),
        ("x<< sim/echo", "x", False, "sim/echo"),
        ("x= << sim/echo", "x", True, "sim/echo"),
        ("x = << sim/echo", "x", True, "sim/echo"),
        ("x =<<", "x", True, None),
        ("변수 <<", "변수", False, None),
        ("pool/org/name", None, True, "pool/org/name"),
        ("fast", None, True, "fast"),
        ("", None, True, None),
    ],
)
def test_binding_and_route(line: str, name: str | None, show: bool, route: str | None) -> None:
    assert parse(line) == CellLine(name, show, route, {})


@pytest.mark.parametrize("line", ["2x << sim/echo", "class << sim/echo", "a.b << sim/echo", "sim/echo x <<", "sim/echo <<"])
def test_what_cannot_be_bound_is_refused(line: str) -> None:
    with pytest.raises(BadOption, match=r"NAME <<|cannot be a variable"):
        parse(line)


def test_options_of_every_kind() -> None:
    typed = parse(
        "r << sim/echo --df rows -n5x -c 4".replace("-n5x", "-n 5") + " --stop a --stop=b -p seed=3 --no-cache --stream -q"
    ).options
    assert typed == {
        "df": "rows",
        "limit": "5",
        "concurrency": "4",
        "stop": ["a", "b"],
        "p": ["seed=3"],
        "cache": False,
        "stream": True,
        "quiet": True,
    }
    options = Options.parse(typed)
    assert (options.limit, options.stop, options.cache, dict(options.p)) == (5, ("a", "b"), False, {"seed": 3})


def test_negative_numbers_and_dashes_are_values() -> None:
    assert parse("--temperature -1").options == {"temperature": "-1"}
    assert parse("--system -").options == {"system": "-"}
    with pytest.raises(BadOption, match="--temperature takes a number"):
        Options.parse(parse("--temperature -1").options)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--modle x", "There is no option --modle"),
        ("--max-token 5", "Did you mean --max-tokens"),
        ("--reasoning-effort low", "There is no option --reasoning-effort. Did you mean --think."),
        ("--service_tier flex", "Did you mean --tier?"),
        ("--max-completion-tokens 5", "Did you mean --max-tokens?"),
        ("--concurency 5", "Did you mean --concurrency"),
        ("--df", "--df needs a value"),
        ("--df --stream", "--df needs a value"),
        ("--stream=yes", "takes no value"),
        ("sim/echo --schema positive, negative", "--schema takes a list without spaces: --schema positive,negative"),
        ("sim/echo --compare a/b, c/d", "--compare takes a list without spaces: --compare a/b,c/d"),
        ("sim/echo hello there", "Unexpected argument 'hello'"),
        ('sim/echo "hello there', 'A quote is not closed: "hello there'),
        ('sim/echo --where "stars > 3 --think off', 'A quote is not closed: "stars'),
        ("sim/echo --where “stars > 3”", "“stars begins with a curly quote"),
        ("sim/echo “be brief”", "“be begins with a curly quote"),
        ("x = sim/echo", "<< is missing after x=. Write x= << sim/echo to name"),
        ("a= vllm/mock", "Write a= << vllm/mock to name the result and show it, or a << vllm/mock to name it alone."),
        ("a=vllm/mock -n 5", "<< is missing after a=. Write a= << vllm/mock to name"),
        ("a= --df rows", "<< is missing after a=. Write a= << to name"),
        ("a <<vllm/mock", "To name the result, write << between two spaces: a << vllm/mock"),
        ("a<<vllm/mock", "To name the result, write << between two spaces: a << vllm/mock"),
        ("a < vllm/mock", "To name the result, write << between two spaces: a << vllm/mock"),
        ("--audit=5", "second opinion"),
        ("--audit 5%", "second opinion"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(line: str, says: str) -> None:
    with pytest.raises(BadOption, match=says) as caught:
        parse(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "sim/echo --api-key abcdef",
        "--token=abcdef",
        "sim/echo sk-abcdefghijklmnopqrstuvwx",
        "-p api_key=sk-abcdefghijklmnopqrstuvwx",
        "--api-key-name=sk-abcdefghijklmnopqrstuvwx",
    ],
)
def test_a_key_on_the_line_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(BadKey, match="%infer key") as caught:
        parse(line)
    assert "abcdef" not in str(caught.value)


def test_help_names_every_option() -> None:
    text = cell_help()
    assert all(flag in text for option in TABLE for flag in option.flags)
