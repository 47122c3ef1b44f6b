"""What a template reads, and what it cannot do: no code runs, nothing changes, nothing is left behind."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import enum
import json
import os
import pathlib
import random
import sys
import time
import types
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pydantic
import pytest

from holynb.config.options import Options
from holynb.errors import BadPrompt
from holynb.prompts import render


def text(body: str, **variables: Any) -> str:
    (prompt,) = render.render(body, rows=None, variables=variables, options=Options())
    return prompt.text


def refusal(body: str, **variables: Any) -> str:
    with pytest.raises(BadPrompt) as caught:
        text(body, **variables)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@dataclasses.dataclass
class Customer:
    name: str
    age: int = 3

    @property
    def secret(self) -> str:
        return pytest.fail("a property was run")

    def __str__(self) -> str:
        return pytest.fail("__str__ was run")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return pytest.fail("__eq__ was run")

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(slots=True)
class Slotted:
    name: str


class Order(pydantic.BaseModel):
    number: int
    lines: list[str] = []


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Size(enum.StrEnum):
    BIG = "big"


class Client:
    """What holds a key: no record, so nothing of it is read."""

    def __init__(self) -> None:
        self.api_key = "sk-very-secret-0123456789"

    def __html__(self) -> str:
        return pytest.fail("__html__ was run")

    def __getitem__(self, key: object) -> str:
        return pytest.fail("__getitem__ was run")

    def __iter__(self) -> Any:
        return pytest.fail("__iter__ was run")

    def __bool__(self) -> bool:
        return pytest.fail("__bool__ was run")

    def __format__(self, spec: str) -> str:
        return pytest.fail("__format__ was run")

    def __add__(self, other: object) -> str:
        return pytest.fail("__add__ was run")

    __radd__ = __mul__ = __mod__ = __rmod__ = __lt__ = __gt__ = __eq__ = __contains__ = __call__ = __getattr__ = __add__  # type: ignore[assignment]
    __hash__ = object.__hash__


class Shouting(str):
    __slots__ = ()

    def upper(self) -> str:
        return pytest.fail("a method of the notebook was run")

    def __str__(self) -> str:
        return pytest.fail("__str__ was run")


# -- what is read ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{ c.name }} {{ c.age + 1 }} {{ c['name'] }} {{ cs|map(attribute='name')|join(',') }} {{ c|tojson }}", 'Kim 4 Kim Kim,Lee {"name": "Kim", "age": 3}'),
        ("{{ s.name }} {{ o.number }} {{ o.lines|join }} {{ n.a }} {{ n.b.c }}", "Ann 7 xy 1 2"),
        ("{{ p.x }} {{ p[1] }} {% for a in p %}{{ a }}{% endfor %} {% for a, b in [p] %}{{ a }}{{ b }}{% endfor %}", "1 2 12 12"),
        ("{{ colour.value }} {{ colour.name }} {{ size }} {{ size.value }} {{ size == 'big' }} {{ size|upper }}", "red RED big big True BIG"),
        ("{{ path }} {{ path.name }} {{ path.stem }} {{ path.suffix }} {{ path.parent }} {{ path|upper }}", "/tmp/a.txt a.txt a .txt /tmp /TMP/A.TXT"),
        ("{{ shout|upper }} {{ shout.upper() }} {{ shout }} {{ shout ~ 1 }}", "HI HI hi hi1"),
        ("{{ lost['no'] is defined }} {{ lost.a }} {{ lost|length }} {{ many.most }} {{ ordered|list }}", "False 1 1 4 ['b', 'a']"),
        ("{{ t.year }} {{ t.strftime('%d.%m.%Y') }} {{ t.date() }} {{ d.isoformat() }} {{ (t - t).total_seconds() }} {{ t > d2 }}", "2025 02.01.2025 2025-01-02 2025-01-02 0.0 True"),
        ("{{ ts.year }} {{ ts.day_name() }} {{ ts.strftime('%Y') }} {{ ts }} {{ ts.date() }} {{ delta.days }}", "2025 Thursday 2025 2025-01-02 00:00:00 2025-01-02 2"),
        ("{{ money * 2 }} {{ money }} {{ half }} {{ half.numerator }} {{ id }} {{ id.hex[:4] }} {{ raw }}", "3.00 1.50 1/2 1 " + "0" * 8 + "-0000-0000-0000-" + "0" * 12 + " 0000 x"),
        ("{{ xs }} {{ nested }} {{ arr }} {{ arr|join('-') }} {{ arr[1] }} {{ arr.mean() }} {{ arr[arr > 1] }} {{ f32 }}", "[1.5, 2] {'a': [1, 'x']} [1, 2, 3] 1-2-3 2 2.0 [2, 3] 0.1"),
        ("{{ xs|tojson }} {{ nested|tojson }} {{ arr|tojson }} {{ gone|tojson }} {{ d|tojson }} {{ f32|tojson }} {{ many|tojson }}", '[1.5, 2] {"a": [1, "x"]} [1, 2, 3] {"a": null, "b": null, "c": [null]} "2025-01-02" 0.1 {"most": 4}'),
        ("{{ '{}-{:>3}'.format(gone.a, 1) }}|{{ '%(d)s' % {'d': 1, 'a': none} }}|{{ gone.a|default(1)|filesizeformat }}", "-  1|1|1 Byte"),
        ("{{ [1, none, 'a']|join(',') }} {{ xs|sum }} {{ xs|max }} {{ xs|sort }} {{ 2 in arr }} {{ 'a' in nested }} {{ arr|length }}", "1,,a 3.5 2 [1.5, 2] True True 3"),
        ("{{ song.items }} {{ song.keys }} {{ song['items'] }} {% for k, v in song.items() %}{{ k }}={{ v }};{% endfor %}", "2 C 2 items=2;keys=C;"),
        ("{{ 'a%sb' % 1 }} {{ '%5.1f|%-3d|' % (2.25, 7) }} {{ '{0:.1f} {x}'.format(2.0, x='y') }} {{ '%s'|format([1]) }}", "a1b   2.2|7  | 2.0 y [1]"),
        ("{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }} {{ cycler('a', 'b').next() }}", "3.5 a"),
        ("{{ f is defined }} {{ os|default('-') }} {{ nothing_here|default('none') }}", "False - none"),
    ],
)  # fmt: skip
def test_values_are_read(body: str, expected: str) -> None:
    assert text(body, **values()) == expected


def values() -> dict[str, Any]:
    lost: Any = collections.defaultdict(lambda: pytest.fail("a factory was run"))
    lost["a"] = 1
    return {
        "c": Customer("Kim"),
        "cs": [Customer("Kim"), Customer("Lee")],
        "s": Slotted("Ann"),
        "o": Order(number=7, lines=["x", "y"]),
        "n": types.SimpleNamespace(a=1, b=types.SimpleNamespace(c=2)),
        "p": Point(1, 2),
        "colour": Colour.RED,
        "size": Size.BIG,
        "path": pathlib.Path("/tmp/a.txt"),
        "shout": Shouting("hi"),
        "lost": lost,
        "many": collections.Counter({"most": 4}),
        "ordered": collections.OrderedDict(b=1, a=2),
        "t": dt.datetime(2025, 1, 2, 3, 4, tzinfo=dt.UTC),
        "d": dt.date(2025, 1, 2),
        "d2": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "ts": pd.Timestamp("2025-01-02"),
        "delta": pd.Timedelta(days=2),
        "money": Decimal("1.50"),
        "half": Fraction(1, 2),
        "id": uuid.UUID(int=0),
        "raw": b"x",
        "xs": [np.float64(1.5), np.int64(2)],
        "nested": {"a": [np.int64(1), np.str_("x")]},
        "arr": np.array([1, 2, 3]),
        "f32": np.float32(0.1),
        "gone": {"a": None, "b": float("nan"), "c": [pd.NA]},
        "song": {"items": 2, "keys": "C"},
        "f": lambda: pytest.fail("a function was run"),
        "os": os,
    }


FRAME = pd.DataFrame({"city": ["Ulm", "Bonn", None], "sum": [3, 1, 2], "at": pd.to_datetime(["2025-01-02"] * 3)}, index=[7, 8, 9])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{ df.shape[0] }} {{ df.columns }} {{ df|length }} {{ df['sum'].max() }} {{ df['sum'].mean() }} {{ df.city.iloc[0] }}", "3 ['city', 'sum', 'at'] 3 3 2.0 Ulm"),
        ("{{ df.loc[8, 'city'] }} {{ df.iloc[0]['sum'] }} {{ df.at[9, 'sum'] }} {{ df.iat[0, 1] }} {{ df.loc[7].city }}", "Bonn 3 2 3 Ulm"),
        ("{{ df[df['sum'] > 1].city.dropna()|join(', ') }} {{ df.sort_values('sum').city.tolist() }} {{ df.city.isna().sum() }}", "Ulm ['Bonn', None, 'Ulm'] 1"),
        ("{{ df.city.str.upper()[7] }} {{ df['at'].dt.year[7] }} {{ df['at'].dt.day_name()[7] }} {{ df.city.str.contains('l')[7] }}", "ULM 2025 Thursday True"),
        ("{% for i, r in df.iterrows() %}{{ i }}{{ r.city }};{% endfor %}{% for r in df.itertuples() %}{{ r.city }}{% endfor %}", "7Ulm;8Bonn;9;UlmBonn"),
        ("{% for x in df %}{{ x }} {% endfor %}{% for x in df['sum'] %}{{ x }}{% endfor %} {{ df['sum']|sum }} {{ (df['sum'] * 2)|list }}", "city sum at 312 6 [6, 2, 4]"),
        ("{{ df[['sum']].head(1).to_json(orient='records') }} {{ df['sum'].to_dict() }} {{ df.head(1)|tojson }}", '[{"sum":3}] {7: 3, 8: 1, 9: 2} [{"city": "Ulm", "sum": 3, "at": "2025-01-02 00:00:00"}]'),
        ("{{ df[['city', 'sum']].to_csv(index=false, sep=';') }}", "city;sum\nUlm;3\nBonn;1\n;2\n"),
        ("{{ df.city.value_counts().index[0] in ('Ulm', 'Bonn') }} {{ df['sum'].quantile(0.5) }} {{ df['sum'].describe()['max'] }} {{ df.nlargest(1, 'sum').city|first }}", "True 2.0 3.0 Ulm"),
        ("{{ df.rename(columns={'sum': 's'}).s.max() }} {{ df.drop(columns=['at']).columns|list }} {{ df.city.isin(['Ulm'])|list }} {{ df.city.unique()|length }}", "3 ['city', 'sum'] [True, False, False] 3"),
        ("{{ df.iloc[:1].city.tolist() }} {{ df.iloc[1:, 1].tolist() }} {{ df.loc[:, 'city'][7] }} {{ df[1:]['sum'].tolist() }} {{ 'Ulm' in df.city.values }}", "['Ulm'] [1, 2] Ulm [1, 2] True"),
        ("{{ df['sum'].mean().round(1) }} {{ (df['sum'] > 1)|list }} {{ df.loc[df['sum'] > 1, 'city'].tolist() }} {{ df.city.values }}", "2.0 [True, False, True] ['Ulm', None] ['Ulm', 'Bonn', None]"),
        ("{{ df.dtypes['sum'] }} {{ df.city.dtype }} {{ df.index|list }} {{ df.empty }} {{ df['sum'].between(2, 3)|list }} {{ 7 in df.index }}", f"int64 {FRAME.city.dtype} [7, 8, 9] False [True, False, True] True"),
    ],
)  # fmt: skip
def test_frames_are_read(body: str, expected: str) -> None:
    assert text(body, df=FRAME) == expected


def test_a_frame_is_printed_whole_or_not_at_all() -> None:
    """pandas shows 60 rows, 50 characters of a text in a series and 100 items of a list, and says no word of the rest to a model."""
    sales = pd.DataFrame({"day": range(200), "text": ["x" * 300] * 200, "tags": [list(range(150))] * 200})
    shown = text("{{ df.to_string() }}|{{ df.text.to_string() }}", df=sales)
    assert "..." not in shown
    assert shown.count("x" * 300) == 400
    assert shown.count("148, 149]") == 200
    assert "more than 1,000,000" in refusal("{{ df.to_string() }}", df=pd.DataFrame({"a": range(500_000)}))
    assert "more than 1,000,000" in refusal("{{ df.to_string() }}", df=pd.DataFrame({"a": ["x" * 500_000, *["y"] * 1000]}))


def test_a_column_whose_name_is_a_method_is_a_column() -> None:
    df = pd.DataFrame({"count": [5], "mean": [6]})
    assert text("{{ df['count'][0] }} {{ df.mean[0] }} {{ df['mean'].mean() }}", df=df) == "5 6 6.0"


# -- what is refused, and does nothing ----------------------------------------------------------------------------------------
ATTACKS = [
    # functions as arguments of pandas' methods
    "{{ df.rename(columns=os.system) }}",
    "{{ df.rename(columns=system) }}",
    "{{ df.rename(columns={'a': system}) }}",
    "{{ df.rename(system) }}",
    "{{ df.groupby(system).size() }}",
    "{{ df.sort_values('a', key=system) }}",
    "{{ df.sort_index(key=system) }}",
    "{{ df.where(system) }}",
    "{{ df.mask(system) }}",
    "{{ df.loc[system] }}",
    "{{ df.loc[[system]] }}",
    "{{ df[system] }}",
    "{{ df.iloc[system, 0] }}",
    "{{ df.combine(df, system) }}",
    "{{ df.a.str.replace('a', system) }}",
    "{{ df.a.str.replace('a', 'b', regex=true) }}",
    "{{ df.apply(system) }}",
    "{{ df.a.map(system) }}",
    "{{ df.agg(system) }}",
    "{{ df.agg('sum') }}",
    "{{ df.pipe(system) }}",
    "{{ df.transform(system) }}",
    "{{ df.assign(b=system) }}",
    "{{ df.filter(items=[system]) }}",
    "{{ df.to_string(formatters=[system]) }}",
    "{{ df.to_json(default_handler=system) }}",
    "{{ df.to_dict(into=system) }}",
    "{{ df.select_dtypes(system) }}",
    "{{ df.isin([system]) }}",
    "{{ df.get(system) }}",
    "{{ df.fillna(system) }}",
    "{{ df.query('@os.system(\"touch owned\")') }}",
    "{{ df.eval('1 + 1') }}",
    "{{ df.plot.line(backend='m') }}",
    "{{ df.plot() }}",
    "{{ df.a.plot.hist(backend='antigravity') }}",
    "{{ df.style.to_html() }}",
    "{{ df.expanding().apply(system) }}",
    # what changes the data
    "{{ df.pop('a') }}",
    "{{ df.drop(columns=['a'], inplace=true) }}",
    "{{ df.drop_duplicates(inplace=true) }}",
    "{{ df.fillna(0, inplace=true) }}",
    "{{ df.sort_values('n', inplace=true) }}",
    "{{ df.reset_index(inplace=true) }}",
    "{{ df.set_index('a', inplace=true) }}",
    "{{ df.rename(columns={'a': 'b'}, inplace=true) }}",
    "{{ df.rename(columns={'a': 'b'}, copy=false) }}",
    "{{ df.n.clip(0, 1, inplace=true) }}",
    "{{ df.insert(0, 'z', 1) }}",
    "{{ df.update(df) }}",
    "{{ df.__setitem__('a', 1) }}",
    "{{ df.columns.values.sort() }}",
    "{{ df.n.values.fill(0) }}",
    "{{ df.attrs.update(a=1) }}",
    "{{ df.flags }}",
    "{{ df.set_axis(['x', 'y'], axis=1) }}",
    "{{ arr.sort() }}",
    "{{ arr.fill(0) }}",
    "{{ arr.put(0, 9) }}",
    "{{ arr.resize(1) }}",
    "{{ arr.setflags(write=false) }}",
    "{{ arr.itemset(0, 9) }}",
    "{{ arr.partition(1) }}",
    "{{ arr.byteswap(true) }}",
    "{{ arr.sum(out=arr) }}",
    "{{ arr.max(0, arr) }}",
    "{{ arr.cumsum(0, none, arr) }}",
    "{{ arr.data }}",
    "{{ arr.base }}",
    "{{ arr.ctypes }}",
    "{{ arr.flat }}",
    "{{ l.append(1) }}",
    "{{ l.sort() }}",
    "{{ l.clear() }}",
    "{{ l['append'](1) }}",
    "{{ (l|attr('append'))(1) }}",
    "{{ d.update(a=2) }}",
    "{{ d.pop('a') }}",
    "{{ d.setdefault('z', 1) }}",
    "{{ d.popitem() }}",
    "{{ dd.no + 1 }}",
    "{{ dd['no'] + 1 }}",
    "{{ s.add(2) }}",
    "{{ q.append(2) }}",
    "{{ ba.extend(ba) }}",
    "{% set l.x = 1 %}",
    "{% set d.a = 1 %}",
    # files, processes, modules
    "{{ df.to_csv('owned') }}",
    "{{ df.to_csv(path_or_buf='owned') }}",
    "{{ df.to_json('owned') }}",
    "{{ df.to_string('owned') }}",
    "{{ df.to_string(buf='owned') }}",
    "{{ df.to_markdown('owned') }}",
    "{{ df.to_html('owned') }}",
    "{{ df.to_pickle('owned') }}",
    "{{ df.to_parquet('owned') }}",
    "{{ df.to_sql('t', 'sqlite:///owned') }}",
    "{{ df.to_excel('owned') }}",
    "{{ df.to_clipboard() }}",
    "{{ df.to_latex('owned') }}",
    "{{ df.info(buf='owned') }}",
    "{{ arr.tofile('owned') }}",
    "{{ arr.dump('owned') }}",
    "{{ arr.tobytes() }}",
    "{{ path.write_text('x') }}",
    "{{ path.read_text() }}",
    "{{ path.unlink() }}",
    "{{ path.touch() }}",
    "{{ os.environ }}",
    "{{ os.environ.HOME }}",
    "{{ os.environ|tojson }}",
    "{{ os['environ'] }}",
    "{{ environ }}",
    "{{ environ['PATH'] }}",
    "{{ environ|list }}",
    "{% for k in environ %}{{ k }}{% endfor %}",
    "{{ os.system('touch owned') }}",
    "{{ system('touch owned') }}",
    "{{ [system]|map('string')|list }}",
    "{{ [system]|list }}",
    "{{ [system]|first }}",
    "{{ [system]|tojson }}",
    "{{ {'f': system}|tojson }}",
    "{{ [os]|join }}",
    "{{ funcs }}",
    "{{ funcs[0] }}",
    "{{ funcs[0]('touch owned') }}",
    "{{ funcs|first }}",
    "{{ funcs|map('upper')|list }}",
    "{{ dictf.f('touch owned') }}",
    "{{ dictf.f }}",
    "{{ dictf }}",
    "{% for k, v in dictf.items() %}{{ v('touch owned') }}{% endfor %}",
    "{% for k, v in dictf.items() %}{{ v }}{% endfor %}",
    "{{ dff.f.iloc[0] }}",
    "{{ dff.f[0]('touch owned') }}",
    "{{ dff }}",
    "{{ dff.to_string() }}",
    "{{ dff.to_csv() }}",
    "{{ dff.to_json() }}",
    "{{ dff.to_dict() }}",
    "{{ dff.f|join }}",
    "{{ dff.f.max() }}",
    "{{ dff.f.unique() }}",
    "{{ dff.f.value_counts() }}",
    "{{ dff.f.isin([1]) }}",
    "{{ dff.sort_values('f') }}",
    "{{ dff.f == 1 }}",
    "{{ 1 in dff.f.values }}",
    "{{ dff.f|sort }}",
    "{{ clients.index(1) }}",
    "{{ clients.count(1) }}",
    "{{ clients == clients }}",
    "{{ 1 in clients }}",
    "{{ df.sample(1) }}",
    "{{ df[[system]:] }}",
    "{{ df.iloc[system:, 0] }}",
    "{{ l[system:] }}",
    "{{ dff.f.sum() }}",
    "{{ Order }}",
    "{{ Order(number=1) }}",
    "{{ Order.model_fields }}",
    "{{ order.model_dump_json() }}",
    "{{ order.model_copy }}",
    "{{ customer.secret }}",
    "{{ customer }}",
    "{{ [customer] }}",
    "{{ customer ~ '' }}",
    "{{ '%s' % customer }}",
    "{{ '{}'.format(customer) }}",
    "{{ '{0.__class__}'.format(customer) }}",
    "{{ '{0.__init__.__globals__}'.format(customer) }}",
    "{{ '{x.api_key}'.format(x=client) }}",
    "{{ '{x.api_key}'.format_map({'x': client}) }}",
    "{{ '{0[f]}'.format(dictf) }}",
    "{{ '%(f)s' % dictf }}",
    "{{ client }}",
    "{{ client.api_key }}",
    "{{ client['api_key'] }}",
    "{{ client|attr('api_key') }}",
    "{{ [client]|map(attribute='api_key')|join }}",
    "{{ [client]|map('attr', 'api_key')|join }}",
    "{{ clients|map(attribute='api_key')|join }}",
    "{{ clients|sort(attribute='api_key')|list }}",
    "{{ clients|groupby('api_key')|list }}",
    "{{ clients|selectattr('api_key')|list }}",
    "{{ clients|rejectattr('api_key')|list }}",
    "{{ clients|selectattr('api_key', 'eq', 'x')|list }}",
    "{{ clients|sum(attribute='api_key') }}",
    "{{ clients|unique|list }}",
    "{{ clients|sort }}",
    "{{ clients|max }}",
    "{{ clients|join }}",
    "{{ clients|tojson }}",
    "{{ clients|first|string }}",
    "{{ clients[0].api_key }}",
    "{{ clients[0:1][0].api_key }}",
    "{% for c in clients %}{{ c.api_key }}{% endfor %}",
    "{% for c in clients %}{% if c %}x{% endif %}{% endfor %}",
    "{{ client + 1 }}",
    "{{ 1 + client }}",
    "{{ 'x' ~ client }}",
    "{{ client == 1 }}",
    "{{ 1 in client }}",
    "{{ client in [1] }}",
    "{{ client and 1 }}",
    "{{ not client }}",
    "{{ -client }}",
    "{{ client|e }}",
    "{{ client|forceescape }}",
    "{{ client|striptags }}",
    "{{ client|list }}",
    "{{ client|length }}",
    "{{ client|pprint }}",
    "{{ clients|pprint }}",
    "{{ client|int }}",
    "{{ client|urlencode }}",
    "{{ client[1:2] }}",
    "{{ gen }}",
    "{{ gen|list }}",
    "{% for x in gen %}{{ x }}{% endfor %}",
    "{{ mv }}",
    "{{ mv.release() }}",
    "{{ ba }}",
    # the insides of Python and Jinja2
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ [''|attr('__cla' ~ 'ss__')] }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ ['']|map('attr', '__class__')|list }}",
    "{{ ['']|groupby('__class__')|list }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__init__}'.format_map({'0': ''}) }}",
    "{{ '%s'.format.__self__ }}",
    "{{ ''.format.__globals__ }}",
    "{{ 'x'.upper }}",
    "{{ 'x'.upper ~ '' }}",
    "{{ ['x'.upper] }}",
    "{{ 'x'.encode('utf-8') }}",
    "{{ 'x'.maketrans('a', 'b') }}",
    "{{ self }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop }}",
    "{% for x in [1] %}{{ loop }}{% endfor %}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ m.__globals__ }}{% endcall %}",
    "{% macro m() %}{% endmacro %}{{ m }}",
    "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{% macro m() %}{% endmacro %}{{ m._environment.globals }}",
    "{% macro m(a) %}{{ a('touch owned') }}{% endmacro %}{{ m(system) }}",
    "{{ namespace }}",
    "{{ namespace().__class__ }}",
    "{{ namespace()._Namespace__attrs }}",
    "{{ namespace(a=1) }}",
    "{{ namespace(f=system).f('touch owned') }}",
    "{{ dict(f=system).f('touch owned') }}",
    "{{ dict }}",
    "{{ dict.mro() }}",
    "{{ dict.fromkeys('ab') }}",
    "{{ range.__class__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler(1).__class__ }}",
    "{{ cycler(1)['__init__'] }}",
    "{{ cycler(system).next()('touch owned') }}",
    "{{ joiner.__init__ }}",
    "{{ joiner('a') }}",
    "{{ lipsum.__globals__.os }}",
    "{{ lipsum() }}",
    "{{ varargs }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ [1]|map(system)|list }}",
    "{{ [1]|select(system)|list }}",
    "{{ [1]|sort(attribute=system) }}",
    "{{ [1]|batch(2, system)|list }}",
    "{{ 1|default(system) ~ system }}",
    "{{ missing_name|default(system) }}",
    "{{ [1]|map('upper') }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block x %}{% endblock %}",
    "{% autoescape true %}{{ 1 }}{% endautoescape %}",
    "{% do l.append(1) %}",
    "{{ await f }}",
    "{% trans %}x{% endtrans %}",
    "{{ callme() }}",
    "{{ callme }}",
    "{{ partial() }}",
    "{{ method() }}",
    "{{ shout.encode() }}",
    "{{ exc.args }}",
    "{{ exc.__traceback__ }}",
    "{{ pattern.sub(system, 'x') }}",
    "{{ ts.to_pydatetime }}",
    "{{ ts.__reduce__() }}",
    "{{ ts.day_name('de_DE.UTF-8') }}",
    "{{ df['t'].dt.day_name(locale='de_DE.UTF-8') }}",
    "{{ df['t'].dt.tz_localize(system) }}",
    "{{ t.astimezone() }}",
]  # fmt: skip


def hostile(home: pathlib.Path) -> dict[str, Any]:
    import functools
    import re

    def gen() -> Any:
        pytest.fail("a generator was run")
        yield 1

    def system(*_: Any) -> int:
        (home / "owned").touch()
        pytest.fail("a function was run")
        return 0

    dd: Any = collections.defaultdict(lambda: pytest.fail("a factory was run"))
    dd["a"] = 1
    return {
        "os": os,
        "system": system,
        "f": system,
        "environ": os.environ,
        "df": pd.DataFrame({"a": ["touch owned", "b"], "n": [2, 1], "t": pd.to_datetime(["2025-01-02"] * 2)}),
        "dff": pd.DataFrame({"f": [system, Client()]}),
        "arr": np.array([3, 1, 2]),
        "l": [3, 1],
        "d": {"a": 1},
        "dd": dd,
        "s": {1},
        "q": collections.deque([1]),
        "ba": bytearray(b"ab"),
        "mv": memoryview(b"ab"),
        "path": home / "note.txt",
        "funcs": [system],
        "dictf": {"f": system},
        "Order": Order,
        "order": Order(number=1),
        "customer": Customer("Kim"),
        "client": Client(),
        "clients": [Client(), Client()],
        "gen": gen(),
        "callme": functools.partial(system),
        "partial": functools.partial(system),
        "method": Client().__add__,
        "shout": Shouting("hi"),
        "exc": ValueError("x"),
        "pattern": re.compile("x"),
        "t": dt.datetime(2025, 1, 2, tzinfo=dt.UTC),
        "ts": pd.Timestamp("2025-01-02"),
    }


PLAIN = ("df", "arr", "l", "d", "dd", "s", "q", "ba")


@pytest.mark.parametrize("body", ATTACKS)
def test_an_attack_is_refused_and_leaves_nothing(body: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the modules and the data are as before; the message is one line, without the key that an object holds."""
    home = tmp_path / "here"
    home.mkdir()
    monkeypatch.chdir(home)
    (home / "note.txt").write_text("note")
    (home / "m.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(home)
    given = hostile(home)
    before = {name: copy.deepcopy(given[name]) for name in PLAIN if name != "dd"}
    message = refusal(body, **given)
    assert "sk-very-secret" not in message
    assert os.environ.get("PATH", "?") not in message
    assert sorted(p.name for p in home.iterdir()) == ["m.py", "note.txt"]
    assert (home / "note.txt").read_text() == "note"
    assert "antigravity" not in sys.modules
    pd.testing.assert_frame_equal(given["df"], before["df"])
    assert given["df"].flags == before["df"].flags
    assert np.array_equal(given["arr"], before["arr"])
    assert given["arr"].flags.writeable
    assert {n: given[n] for n in PLAIN if n not in ("df", "arr", "dd")} == {n: before[n] for n in PLAIN if n not in ("df", "arr", "dd")}
    assert dict(given["dd"]) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "{{ os.environ }}",
            "os is a module, and a template reads values only: compute it in the cell above, e.g. x = …, and write {{ x }}",
        ),
        ("{{ f() }}", "f is a function, and a template reads values only: compute it in the cell above, e.g. x = …, and write {{ x }}"),
        ("{{ client.api_key }}", "client is an object (Client), and a template reads values only: compute it in the cell above"),
        ("{{ df.apply(f) }}", "a template cannot read apply of a DataFrame: compute it in the cell above"),
        ("{{ df.drop(columns=['a'], inplace=true) }}", "drop takes no inplace= in a template: compute it in the cell above"),
        ("{{ customer }}", "Customer is an object: name its fields, for example {{ ….name }}"),
        ("{{ 'x'.upper }}", "upper is a method: write {{ ….upper() }}"),
        ("{{ l|map('string') }}", "end it with |list or |join"),
        ("{{ customer.nmae }}", "There is no 'nmae' in the Customer"),
    ],
)
def test_a_refusal_says_what_to_do(body: str, words: str, tmp_path: pathlib.Path) -> None:
    assert words in refusal(body, **hostile(tmp_path))


BOMBS = [
    "{{ '%0999999999d' % 1 }}",
    "{{ '%0999999999d'|format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:f}'.format(huge) }}",
    "{{ '%d' % huge }}",
    "{{ huge|int }}",
    "{{ huge|round }}",
    "{{ book|wordwrap(1) }}",
    "{{ book ~ book }}",
    "{{ [book] * 100 }}",
    "{{ df.to_json(indent=1000000) }}",
    "{{ df.to_csv(float_format='%999999.9f') }}",
    "{{ df.to_string(float_format='%999999.9f') }}",
    "{{ df.to_markdown(floatfmt='999999.9f') }}",
    "{{ df.to_csv(na_rep=book) }}",
    "{{ df.loc[same.index].loc[['a', 'a', 'a']] }}",
    "{{ same.loc[['a', 'a']] }}",
    "{{ same + same.head(10) }}",
    "{{ same.v.loc[['a'] * 1000] }}",
    "{{ df[['n'] * 1000] }}",
    "{{ big.values.tolist() }}",
    "{{ big.v.tolist() }}",
    "{{ big.to_string() }}",
    "{{ big|string }}",
    "{{ big.T }}",
    "{{ big.v|list }}",
    "{{ big.v|tojson }}",
    "{{ tall == wide }}",
    "{{ tall * wide }}",
    "{{ flat[:, none] * flat }}",
    "{{ texts.t * 1000000 }}",
    "{{ texts.t + texts.t }}",
    "{{ texts.t.sum() }}",
    "{{ texts.t.cumsum() }}",
    "{{ texts.t.str.contains('(a+)+$') }}",
    "{{ texts.t.str.repeat(1000000) }}",
    "{{ texts.t.str.pad(100000000) }}",
    "{{ texts.t.str.center(100000000) }}",
    "{{ texts.t.str.replace('a', book) }}",
    "{{ texts.t.str.cat(sep=book) }}",
    "{{ df['t'].dt.strftime('%Y' * 100000) }}",
    "{{ t.strftime('%Y' * 100000) }}",
    "{{ df.sample(n=10, replace=true) }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [big.v * 2] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [big[big.v > 0]] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [-big.v] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [big.sort_values('v')] %}{% endfor %}",
    "{{ df.n.value_counts(bins=1000000000) }}",
    "{{ df.n.repeat(1000000000) }}",
    "{{ df.filter(regex='(a+)+$') }}",
    "{{ df.merge(df, how='cross') }}",
    "{% set ns = namespace(t=(1,)) %}{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ ns.t in same }}",
    "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{{ book }}{% endfor %}",
    "{% for a in [] %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "[" * 150 + "1" + "]" * 150 + " }}",
]


@pytest.mark.parametrize("body", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(body: str) -> None:
    column = np.arange(200_000.0).reshape(-1, 1)
    given = {
        "book": "word " * 600_000,
        "huge": Decimal("1E+999999999"),
        "df": pd.DataFrame({"a": ["x", "y"], "n": [1.5, 2.5], "t": pd.to_datetime(["2025-01-02"] * 2)}),
        "same": pd.DataFrame({"v": range(1000)}, index=["a"] * 1000),
        "big": pd.DataFrame({"v": np.arange(1_200_000)}),
        "texts": pd.DataFrame({"t": ["a" * 30 + "!"] * 100}),
        "tall": column,
        "wide": column.T,
        "flat": np.arange(200_000.0),
        "t": dt.datetime(2025, 1, 2, tzinfo=dt.UTC),
    }
    start = time.process_time()
    refusal(body, **given)
    assert time.process_time() - start < 5


def test_one_prompt_takes_two_seconds_at_most_and_many_as_long_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.bounded import allowance

    now = [0.0]
    monkeypatch.setattr(allowance.time, "monotonic", lambda: now.__setitem__(0, now[0] + 0.01) or now[0])
    body = "{% for x in xs %}{{ x|upper }}{% endfor %}"
    assert "longer than 2 seconds" in refusal(body, xs=["a"] * 200)
    rows = [{"xs": ["a"] * 20}] * 50
    assert len(render.render(body, rows=rows, variables={}, options=Options())) == 50


def test_an_interrupt_ends_a_long_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.bounded.allowance import Allowance

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Allowance, "spend", interrupt)
    with pytest.raises(KeyboardInterrupt):
        text("{% for x in [1, 2] %}{{ x }}{% endfor %}")


def test_json_of_a_value_is_json() -> None:
    given = {"v": {"a": [np.int64(1), None, float("nan"), {"t": pd.Timestamp("2025-01-02")}], "s": {1}, 3: True, "o": Order(number=1)}}
    assert json.loads(text("{{ v|tojson }}", **given)) == {
        "a": [1, None, None, {"t": "2025-01-02 00:00:00"}],
        "s": [1],
        "3": True,
        "o": {"number": 1, "lines": []},
    }


def test_chance_in_a_template_leaves_the_notebooks_own_alone() -> None:
    state = random.getstate()
    assert text("{{ xs|random in xs }}", xs=[1, 2, 3]) == "True"
    assert random.getstate() == state


def test_a_message_is_short_whatever_a_value_holds() -> None:
    assert len(refusal("{{ d[key].x }}", d={}, key="k" * 100_000)) < 2_000
    start = time.process_time()
    (row,) = [{"a-b": 1}]
    with pytest.raises(BadPrompt):
        render.render("{{" * 100_000 + "a-b", rows=[row], variables={}, options=Options())
    assert time.process_time() - start < 5
