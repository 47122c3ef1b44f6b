"""Markdown of a model as HTML: what is allowed and nothing else, of whatever text; bounded; and nothing of an answer gets lost."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holynb.ui.output import markdown

ATTRIBUTES = {
    "a": {"href", "rel", "target"},
    "div": {"class"},
    "span": {"class"},
    "pre": {"class"},
    "ol": {"start"},
    "td": {"dir", "style"},
    "th": {"dir", "style"},
    **{tag: {"dir"} for tag in ("p", "blockquote", "li", "h3", "h4", "h5", "h6")},
    **{tag: set() for tag in ("ul", "em", "strong", "s", "code", "br", "hr", "table", "thead", "tbody", "tr")},
}
VALUES = {
    "class": {"holynb-markdown", "holynb-code", "holynb-note", "holynb-address"},
    "dir": {"auto"},
    "rel": {"noopener noreferrer nofollow"},
    "target": {"_blank"},
    "style": {f"text-align:{side}" for side in ("start", "left", "center", "right")},
}
VOID = {"br", "hr"}
#: What an answer may try, and what Markdown is made of.
PIECES = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg/onload=alert(1)>",
    '"><iframe src=//evil.example>',
    "![a](https://evil.example/x.png)",
    "![a](data:image/svg+xml,<svg/onload=alert(1)>)",
    "[a](javascript:alert(1))",
    "[a](JaVa\tscript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](https://u:p@evil.example 'title\" onclick=alert(1)')",
    '[a](https://x.example/"onmouseover=alert(1))',
    "<https://x.example/?q='\"<>>",
    "[a]: javascript:alert(1)",
    "[a][a]",
    "<javascript:alert(1)>",
    "<!-- -->",
    "<![CDATA[",
    "<style>*{background:url(//evil.example)}</style>",
    "\u202e",
    "\x00",
    "\x1b]8;;http://x\x07",
    "\ud800",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&#x202e;",
    "$$\\href{javascript:alert(1)}{x}$$",
    *("# ", "###### ", "> ", "- ", "1. ", "7) ", "* ", "    ", "\t", "\n", "\n\n", "|a|b|\n|-|:-:|\n", "|", "---\n", "===\n"),
    *(
        "*",
        "**",
        "_",
        "__",
        "~~",
        "`",
        "```",
        "```js\n",
        "~~~\n",
        "\\",
        "[",
        "](",
        ")",
        "!",
        "<",
        ">",
        "&",
        '"',
        "'",
        "a",
        "a b",
        "\u05d0",
        "한",
    ),
]
wild = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=25).map("".join)


class Reader(HTMLParser):
    """Holds each tag and attribute to what is allowed, and keeps the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= ATTRIBUTES[tag]
        for name, value in attrs:
            if name in VALUES:
                assert value in VALUES[name]
            elif name == "href":
                assert re.match(r"https?://[^@/?#\\]+(?:[/?#]|$)", value or ""), value
            else:
                assert (value or "").isdigit()
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data

    def unknown(self, data: str) -> None:
        raise AssertionError(data)

    handle_comment = handle_decl = handle_pi = unknown_decl = unknown


def read(text: str) -> Reader:
    html = markdown.as_html(text)
    assert html is not None
    return Reader(html)


@given(wild)
@settings(max_examples=80, deadline=None)
def test_only_what_is_allowed_is_written(text: str) -> None:
    page = read(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page.said)


pieces = st.sampled_from([p for p in PIECES if p.strip() and not re.search(r"[a-z0-9&]", p)])


# As many as an address is long at most: a longer one is cut.
@given(st.lists(st.tuples(st.sampled_from(["", "\n", "\n\n", " "]), pieces), max_size=16))
@example([("\n", "```"), *[("", "<!-- -->")] * 5])
@example([("\n\n", "~~~"), *[(" ", "`")] * 12, ("\n", ">")])
@settings(max_examples=60, deadline=None)
def test_no_word_of_an_answer_gets_lost(parts: list[tuple[str, str]]) -> None:
    words = [f"w{i}x" for i in range(len(parts) + 1)]
    text = words[0] + "".join(f"{end}{piece}{word}" for (end, piece), word in zip(parts, words[1:], strict=True))
    said = read(text).said
    assert [w for w in words if w not in said] == []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# a\n## b\n### c\n#### d", "<h3>a</h3><h4>b</h4><h5>c</h5><h6>d</h6>"),
        ("- a\n- b\n  1. c\n  2. d", "<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul>"),
        ("3. a", '<ol start="3"><li>a</li></ol>'),
        ("*a* **b** ~~c~~ `d<`", "<p><em>a</em> <strong>b</strong> <s>c</s> <code>d&lt;</code></p>"),
        ("a\nb", "<p>a<br>b</p>"),
        ("> a", "<blockquote><p>a</p></blockquote>"),
        ("```py\nif a < b:\n```", '<div class="holynb-note">py</div><pre class="holynb-code"><code>if a &lt; b:\n</code></pre>'),
        ("|a|\n|-:|", '<table><thead><tr><th style="text-align:right">a</th></tr></thead></table>'),
        ("|a|\n|-|\n|b|c|", '<pre class="holynb-code"><code>|a|\n|-|\n|b|c|</code></pre>'),
        ("<b>a</b>", "<p>&lt;b&gt;a&lt;/b&gt;</p>"),
        ("[a]: https://b.example", "<p>[a]: https://b.example</p>"),
    ],
)  # fmt: skip
def test_what_is_written(text: str, html: str) -> None:
    assert (markdown.as_html(text) or "").replace(' dir="auto"', "") == f'<div class="holynb-markdown">{html}</div>'


@pytest.mark.parametrize(
    ("text", "href", "said"),
    [
        ("[a](https://b.example/c)", "https://b.example/c", "a (https://b.example/c)"),
        ("<https://b.example>", "https://b.example", "https://b.example"),
        ("[b.example](https://b.example/)", "https://b.example/", "b.example"),
        ("[https://good.example](https://evil.example)", "https://evil.example", "https://good.example (https://evil.example)"),
        ("![a](https://b.example/c.png)", "https://b.example/c.png", "a (https://b.example/c.png)"),
        ("![](https://b.example/c.png)", "https://b.example/c.png", "picture (https://b.example/c.png)"),
        ("[![a](https://i.example)](https://b.example)", "https://b.example", "a (https://b.example)"),
        ('[a](https://b.example "c")', "https://b.example", 'a (https://b.example "c")'),
        ("[a](https://пример.example)", "https://xn--e1afmkfd.example", "a (https://xn--e1afmkfd.example)"),
        ("[a](javascript:alert(1))", None, "a (javascript:alert(1))"),
        ("[a](data:text/html,b)", None, "a (data:text/html,b)"),
        ("[a](//b.example)", None, "a (//b.example)"),
        ("[a](/etc/passwd)", None, "a (/etc/passwd)"),
        ("[a](mailto:b@c.example)", None, "a (mailto:b@c.example)"),
        ("[a](https://good.example@evil.example)", None, "a (https://good.example@evil.example)"),
        ("[a](https://)", None, "a (https://)"),
        ("[a](https://[b)", None, "a (https://%5Bb)"),
    ],
)
def test_a_link_goes_to_the_web_and_shows_its_address(text: str, href: str | None, said: str) -> None:
    page = read(text)
    assert [a.get("href") for tag, a in page.tags if tag == "a"] == ([href] if href else [])
    assert page.said == said


def test_a_long_address_is_cut_where_it_is_shown() -> None:
    page = read(f"![a](data:image/png;base64,{'A' * 50_000})")
    assert len(page.said) < 300


@pytest.mark.parametrize(
    "text",
    [
        "# a\n" * 1_300_000,  # 5 MB
        "- " * 10_000 + "a",
        "> " * 10_000 + "a",
        "\n".join("  " * i + "- a" for i in range(100)),
        '"' * markdown.MAX_CHARS,  # six times as long as HTML
        "|a" * 30 + "|\n" + "|-" * 30 + "|\n" + "|b\n" * 1_000,
    ],
)
def test_what_is_too_much_is_not_rendered(text: str) -> None:
    began = time.thread_time()
    assert markdown.as_html(text) is None
    assert time.thread_time() - began < 4 * markdown.MAX_SECONDS


@pytest.mark.parametrize("text", ["[a](" * 25_000, "*a_ " * 20_000, "![[" * 30_000, "-\n" * 40_000])
def test_time_is_bounded(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_SECONDS", 0.05)
    took = []
    for _ in range(3):  # one of them may wait for a collection of all that the tests before have made
        began = time.thread_time()
        assert markdown.as_html(text) is None
        took.append(time.thread_time() - began)
    assert min(took) < 0.5


def test_the_time_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_SECONDS", -1.0)
    assert markdown.as_html("*a*\n\n" * 1_000) is None


def test_a_very_wide_table_is_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_SECONDS", 30.0)  # its width decides, however slow the machine is
    wide = "|a" * 1_000 + "|\n" + "|-" * 1_000 + "|\n" + "|b" * 1_000 + "|"
    page = read(f"before\n\n{wide}\n\n*after*")
    assert [tag for tag, _ in page.tags] == ["div", "p", "pre", "code", "p", "em"]
    assert wide in page.said


def test_deep_but_readable_lists_are_rendered() -> None:
    page = read("\n".join("  " * i + "- a" for i in range(15)))
    assert len([tag for tag, _ in page.tags if tag == "li"]) == 15


def test_contents_of_fenced_blocks() -> None:
    assert markdown.fenced("a\n\n```py\nb\nc\n```\n\nd `e`\n\n~~~\nf\n~~~\n") == ["b\nc", "f"]
    assert markdown.fenced("no code") == []
