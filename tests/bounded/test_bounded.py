"""Templates that would take or make too much end before they do; all others read as Jinja2's sandbox renders them."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import pytest
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holynb.bounded import BoundedEnvironment

ENVIRONMENT = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
PLAIN = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])

BOOK = "word " * 600_000
VALUES: dict[str, Any] = {
    "book": BOOK,
    "xs": ["b", "a", "b"],
    "half": Fraction(1, 2),
    "long": list(range(500_000)),
    "d": {"k": [1, {"z": None}], "items": 3},
    "messages": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": None}],
}


def rendered(source: str, **options: Any) -> str:
    return ENVIRONMENT.rendered(ENVIRONMENT.from_string(source), VALUES, **options)


@pytest.mark.parametrize(
    "source",
    [
        "{{ xs|join(', ') }} {{ xs|sort }} {{ xs|unique|list }} {{ xs|map('upper')|list }} {{ xs|reverse|list }} {{ xs|first }}{{ xs[1:] }}",
        "{{ xs|batch(2)|list }} {{ xs|slice(2)|list }} {{ xs|groupby(0)|list }} {{ xs|select('eq', 'a')|list }} {{ xs|length }} {{ xs|string }}",
        "{{ d }} {{ d|tojson|length > 0 }} {{ d.k[1].z }} {{ d|dictsort }} {{ d.items()|list }} {{ d|items|list }} {{ d.get('no', 'x') }}",
        "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in xs }} {{ 'z' not in xs }} {{ 1 == 1.0 }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 2 is gt 1 }}",
        "{{ 'a' ~ 1 ~ none ~ xs }} {{ 2 ** 10 }} {{ 'ab' * 3 }} {{ 7 % 4 }} {{ 7 // 2 }} {{ 1 / 4 }} {{ [1] + [2] }} {{ (1, xs) }} {{ {'a': xs} }}",
        "{{ '%s|%5.2f|%-4d|%x|%%' % ('é', 2.5, 3, 255) }} {{ '%(a)s' % {'a': 1} }} {{ '%s %s'|format(1, [2]) }} {{ '%r' % ('x',) }} {{ '%c' % 65 }}",
        "{{ '{} {x:>5} {0:.2f}'.format(2.0, x=1) if false else '{0} {x:>5} {0:.2f} {1[0]}'.format(2.0, xs, x=1) }} {{ '{a}'.format_map({'a': 1}) }}",
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m.role }}{{ m['content'] }}{{ loop.cycle(1, 2) }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% for i in [3, 2] recursive %}{{ i }}{{ loop(range(i)) if i }}{{ loop.depth }}{% endfor %}",
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{% call m(3) %}in{% endcall %}{% set q %}x{{ m(1) }}{% endset %}{{ q }}",
        "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }} {% filter upper %}x{{ 1 }}{% endfilter %}",
        "{{ 'a b c'.split() }} {{ 'a,b'.split(',', 1) }} {{ ' x'.strip() }} {{ 'x'.center(5) }}| {{ 'a\tb'.expandtabs(4) }} {{ 'ab'.replace('a', 'c') }} {{ '-'.join(xs) }}",
        "{{ 'a b c d'|wordwrap(3) }} {{ 'a\nb'|indent(2) }} {{ 'abc'|center(9) }}| {{ 'long text here'|truncate(9) }} {{ ' x '|trim }} {{ 'x y'|title }}",
        "{{ '12'|int + 1 }} {{ '1.5'|float }} {{ 2.567|round(2) }} {{ 2.5|round(0, 'ceil') }} {{ 1234567|filesizeformat }} {{ 'a b&c'|urlencode }} {{ [1, 2]|sum }}",
        "{{ '<b>x</b> y'|striptags }} {{ 'a<b'|e }} {{ 'a<b'|escape }} {{ {'id': 1}|xmlattr }} {{ 'a'|attr('nope') is undefined }} {{ none|upper }} {{ nope }}",
        "{{ book|length }} {{ book[:4] }} {{ ('x' + book)|length }} {{ book|upper|length }} {{ book|replace('word', 'w')|length }} {{ book.split()|length }}",
        "{{ long[-1] }} {{ long|length }} {{ long|sum }} {{ range(5)|list }} {{ range(10, 0, -3)|list }} {{ dict(a=1) }} {{ joiner('|')() }}",
    ],
)
def test_what_stays_within_bounds_reads_as_it_always_did(source: str) -> None:
    assert rendered(source, seconds=60) == PLAIN.from_string(source).render(VALUES)


BOMBS = [
    "{{ 'a' * 10**12 }}",
    "{{ [0] * 10**12 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%.999999999f' % 1.5 }}",
    "{{ '%0999999999d'|format(1) }}",
    "{{ ['%0999999999d']|map('format', 1)|list }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:>{w}}'.format(1, w=999999999) }}",
    "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "{{ ('{0}' * 1000).format(book) }}",
    "{{ ('%(a)s' * 1000) % {'a': book} }}",
    "{{ '%0999999999d' is odd }}",
    "{{ ['%0999999999d']|select('divisibleby', 1)|list }}",
    "{{ book|wordwrap(1) }}",
    "{{ ('a' * 900000)|wordwrap(1) }}",
    "{{ ('!' * 900000)|wordwrap(80) }}",
    "{{ 'a'|center(10**12) }}",
    "{{ 'a'.center(10**12) }}",
    "{{ 'a'.ljust(10**12) }}",
    "{{ 'a'.rjust(10**12) }}",
    "{{ '1'.zfill(10**12) }}",
    "{{ '\t'.expandtabs(10**12) }}",
    "{{ ('\n' * 1000)|indent(10**6) }}",
    "{{ ('a' * 1000)|replace('a', 'b' * 10000) }}",
    "{{ ('a' * 1000).replace('', 'b' * 10000) }}",
    "{{ [book] * 100 }}",
    "{{ ([book] * 100)|join }}",
    "{{ book.join(xs * 3) }}",
    "{{ ([book] * 100)|tojson }}",
    "{{ xs|tojson(indent=10**9) }}",
    "{{ long|tojson(indent=30) }}",
    "{{ book ~ book }}",
    "{{ book + book }}",
    "{{ ('\n' * 900000)|wordwrap(5) }}",
    "{% set ns = namespace(t=half) %}{% for i in range(60) %}{% set ns.t = ns.t / (ns.t * ns.t + 1) %}{% endfor %}",
    "{{ range(10**9)|list }}",
    "{{ xs|batch(10**9, 0)|list }}",
    "{{ xs|slice(10**9)|list }}",
    "{{ 1|round(10**9, 'ceil') }}",
    "{{ 12345|round(-(10**9)) }}",
    "{{ ('9' * 900000)|int }}",
    "{{ ('1' * 900000)|int(base=16) }}",
    "{{ ('<!--x-->' * 100000)|striptags }}",
    "{{ (long|list)|pprint }}",
    "{{ ('a' * 900000).strip('b' * 900000 + 'a') }}",
    "{{ ('a' * 900000).rfind('ab' + 'a' * 400000) }}",
    "{{ (('%20' * 300000)|urlencode)|urlencode }}",
    "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}",
    "{% for a in [1] recursive %}{{ loop(range(1000000)) }}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{% for i in range(100000) %}{{ book }}{% endfor %}{% endmacro %}{{ m() }}",
    "{% set s %}{% for i in range(1000000) %}" + "x" * 999 + "{% endfor %}{% endset %}",
    "{% set ns = namespace(t='ab') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "{% set ns = namespace(t=['ab']) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(t=7) %}{% for i in range(60) %}{% set ns.t = ns.t * ns.t %}{% endfor %}",
    "{% set ns = namespace(t=(1,)) %}{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.t: 1} }}",
    "{% set ns = namespace(t=1) %}{% for i in range(60) %}{% set ns.t = dict(a=ns.t, b=ns.t) %}{% endfor %}{{ ns.t == ns.t }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ['a' * 1000000] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [book[loop.index:]] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [book|upper] %}{% endfor %}",
    "{% for i in range(100000) %}{{ book }}{% endfor %}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(source: str) -> None:
    start = time.process_time()
    with pytest.raises((SecurityError, TypeError)):
        rendered(source)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("source", ["{{ 'x'|urlize }}", "{{ lipsum() }}", "{{ xs.append(1) }}", "{{ xs.__class__.__mro__ }}", "{{ f() }}"])
def test_what_is_not_offered_fails(source: str) -> None:
    with pytest.raises(TemplateError, match=r"urlize|undefined|unsafe|cannot call"):
        ENVIRONMENT.rendered(ENVIRONMENT.from_string(source), {**VALUES, "f": lambda: pytest.fail("called")})


def test_the_time_is_bounded_where_the_steps_are_not_many() -> None:
    source = "{% for i in range(1000) %}{% if book|wordwrap(80) %}{% endif %}{% endfor %}"
    with pytest.raises(SecurityError, match=r"longer than 0\.2 seconds"):
        rendered(source, seconds=0.2)


def test_functions_and_filters_of_ones_own() -> None:
    env = BoundedEnvironment()
    env.offer(twice=lambda text: text + text)
    env.globals["greet"] = lambda name: f"hello {name}"
    assert env.rendered(env.from_string("{{ greet('you')|twice }}"), {}) == "hello youhello you"


def test_renderings_in_threads_do_not_share_their_limits() -> None:
    template = ENVIRONMENT.from_string("{% for i in range(300000) %}{% endfor %}done")
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(ENVIRONMENT.rendered(template, {}, seconds=60))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == ["done"] * 6, "six times 300,000 steps are more than one rendering may take"


def test_a_template_is_rendered_nowhere_else() -> None:
    with pytest.raises(SecurityError, match="rendered"):
        ENVIRONMENT.from_string("{{ xs|length }}").render(VALUES)
