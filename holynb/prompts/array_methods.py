"""The methods of arrays and frames that a template may call: those that read, with plain values alone as arguments.

No function, no class, no other frame, no `inplace` and no path is taken, and what would be printed is sized before. A list in a cell and a
long text are printed whole: pandas would shorten them without saying so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

from holynb.bounded import CONTAINERS, ITEM_BYTES, MAX_ITEMS, Allowance, TooMuch, check_spec, measure, whole
from holynb.prompts.arrays import Accessor, check_objects, check_size, kind_of
from holynb.prompts.exact_floats import exact_frame, exact_list

__all__ = ["METHODS", "call", "listed", "printed"]

Convert = Callable[[Any], Any]

_REDUCE = "all any count max mean median min quantile std sum var"
_READ = f"""
{_REDUCE} abs between clip cummax cummin cumsum describe diff drop drop_duplicates dropna duplicated fillna get head idxmax idxmin isin isna
isnull keys mode nlargest notna notnull nsmallest nunique rank reset_index round sort_index sort_values tail value_counts
"""
_PRINT = "to_csv to_dict to_html to_json to_markdown to_string"
_TEXT = """
capitalize casefold contains count endswith get isalpha isdigit islower isnumeric isspace isupper len lower lstrip removeprefix removesuffix
rstrip slice startswith strip swapcase title upper
"""
_MOMENT = """
ctime date day_name isocalendar isoformat isoweekday month_name normalize strftime time timestamp to_pydatetime total_seconds weekday
"""
#: Methods by kind; none of them changes what it is called on.
METHODS: Mapping[str, frozenset[str]] = {
    "frame": frozenset(f"{_READ} {_PRINT} filter items iterrows itertuples rename select_dtypes set_index".split()),
    "series": frozenset(f"{_READ} {_PRINT} item items to_frame to_list tolist unique".split()),
    "index": frozenset(["isin", "max", "min", "nunique", "to_list", "tolist", "unique", "value_counts"]),
    "array": frozenset(
        ["all", "any", "argmax", "argmin", "cumsum", "item", "max", "mean", "min", "prod", "round", "std", "sum", "tolist", "var"]
    ),
    "number": frozenset({"as_integer_ratio", "is_integer", "item", "round", "tolist"}),
    "moment": frozenset(_MOMENT.split()),
    "str": frozenset(_TEXT.split()),
    "dt": frozenset(["day_name", "isocalendar", "month_name", "normalize", "strftime", "total_seconds"]),
}
#: Methods that calculate: of a column of texts they would make one long text, of objects they would run their code.
_ARITHMETIC = frozenset(["abs", "cummax", "cummin", "cumsum", "diff", "mean", "median", "prod", "quantile", "round", "std", "sum", "var"])
#: Methods whose result is made of Python's objects.
_LISTING = frozenset(f"{_PRINT} items iterrows itertuples mode to_list tolist unique value_counts".split())

#: Methods that look at no value.
_MOVING = frozenset(
    [
        "filter",
        "get",
        "head",
        "items",
        "iterrows",
        "itertuples",
        "item",
        "keys",
        "rename",
        "reset_index",
        "select_dtypes",
        "set_index",
        "tail",
        "to_frame",
        "tolist",
    ]
)

_READ_KEYWORDS = """
ascending axis by columns decimals drop dropna errors exclude how ignore_index include inclusive index items keep labels left level like
lower method n na na_option na_position name normalize numeric_only pat pct percentiles periods q right skipna sort start step stop subset
thresh upper value values
"""
_CSV_KEYWORDS = """
columns date_format decimal doublequote escapechar float_format header index index_label lineterminator na_rep quotechar quoting sep
"""
#: Names of arguments that may be given: of methods that read, and of each that prints.
_KEYWORDS = frozenset(_READ_KEYWORDS.split())
_PRINT_KEYWORDS: Mapping[str, frozenset[str]] = {
    "to_csv": frozenset(_CSV_KEYWORDS.split()),
    "to_dict": frozenset({"index", "orient"}),
    "to_html": frozenset({"bold_rows", "border", "columns", "decimal", "float_format", "header", "index", "justify", "na_rep"}),
    "to_json": frozenset({"date_format", "date_unit", "double_precision", "force_ascii", "indent", "index", "lines", "orient"}),
    "to_markdown": frozenset({"floatfmt", "headers", "index", "numalign", "stralign", "tablefmt"}),
    "to_string": frozenset({"columns", "decimal", "float_format", "header", "index", "index_names", "justify", "na_rep", "sparsify"}),
}
#: What keeps a method that prints from rounding numbers, or from reading texts as such.
_DIGITS: Mapping[str, Mapping[str, Any]] = {"to_json": {"double_precision": 15}, "to_markdown": {"disable_numparse": True}}
#: Longest text, and most items, among the arguments of a method.
MAX_ARGUMENT = 1_000
#: What a number or a date is taken to print as, in characters.
CELL_CHARS = 12
_PATTERN = re.compile(r"[.^$*+?{}\[\]\\|()]")


def call(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, allowance: Allowance, convert: Convert) -> Any:
    """`owner.name(…)`, a method of METHODS. `convert`: text of a value that is neither text nor number. Raises SecurityError."""
    kind = str(kind_of(owner))
    given = [_argument(a, name) for a in args]
    named = {k: _argument(v, name) for k, v in kwargs.items()}
    _check_arguments(kind, name, given, named)
    if name in _ARITHMETIC and kind in ("frame", "series", "array"):
        _check_numbers(owner, name, bool(named.get("numeric_only")))
    if name in _LISTING:
        check_size(owner)
    if name not in _MOVING and kind in ("frame", "series", "index", "array"):
        check_objects(owner)
    target = owner.target if isinstance(owner, Accessor) else owner
    if name in ("tolist", "to_list") and kind in ("series", "index", "array") and not given and not named:
        return listed(owner, allowance)
    if name in _PRINT.split() and name != "to_dict":
        rounded = name in ("to_csv", "to_json") or not {"decimal", "float_format", "floatfmt"}.isdisjoint(named)
        target = _printable(owner, allowance, convert, padded=name in ("to_markdown", "to_string"), whole_numbers=not rounded)
        named = {**({} if rounded and name == "to_markdown" else _DIGITS.get(name, {})), **named}
        if kind == "series" and name == "to_string":
            target, named = target.to_frame(), {"header": False, **named}
    if name == "contains":
        named["regex"] = False
    result = getattr(target, name)(*given, **named)
    if isinstance(result, str | list | dict):
        allowance.make(len(result), len(result), item=1 if isinstance(result, str) else ITEM_BYTES)
    return result


def printed(value: Any, allowance: Allowance, convert: Convert) -> str:
    """A whole frame or series as a table."""
    allowance.spend(10)
    table = _printable(value, allowance, convert, padded=True, whole_numbers=True)
    if not len(table):  # pandas tells of its own kind: Empty DataFrame
        return "  ".join(map(str, table.columns)) if kind_of(value) == "frame" else ""
    if table.index.nlevels > 1:  # pandas leaves out a label that stands above, too
        table.index = ["  ".join(map(str, label)) for label in table.index.tolist()]
    return str(table.to_string() if kind_of(value) == "frame" else table.to_frame().to_string(header=False))


def listed(value: Any, allowance: Allowance) -> list[Any]:
    """A series, an index or an array as a list."""
    allowance.spend(1 + value.size // 100)
    check_size(value)
    allowance.make(value.size, item=ITEM_BYTES)
    return exact_list(value)


# -- arguments -------------------------------------------------------------------------------------------------------------
def _argument(value: Any, name: str) -> Any:
    """A plain value, of a size that no method multiplies to much."""
    if isinstance(value, Undefined):
        return None
    kind = kind_of(value)
    if name == "isin" and kind in ("series", "index", "array"):
        check_size(value)
        return value.tolist()
    if kind not in (None, "number", "moment"):
        raise SecurityError(f"{name} takes no other frame or column in a template: compute it in the cell above")
    size = measure(value)
    if size.longest > MAX_ARGUMENT or (name != "isin" and size.items > MAX_ARGUMENT):
        raise TooMuch(f"{name} takes at most {MAX_ARGUMENT:,} characters or items")
    if isinstance(value, int) and abs(value) > MAX_ITEMS and name in ("head", "tail", "quantile", "round", "value_counts"):
        whole(value)
    return value


def _check_arguments(kind: str, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what is not an argument of reading: paths, `inplace`, `out`, functions, patterns, other locales."""
    printing = name in _PRINT_KEYWORDS
    most = (
        (1 if name == "to_dict" else 0)
        if printing
        else 0
        if name in ("day_name", "month_name")
        else 1
        if kind in ("array", "number")
        else 2
    )
    known = _KEYWORDS | {"regex"} if name == "contains" else _PRINT_KEYWORDS.get(name, _KEYWORDS)
    unknown = sorted(set(kwargs) - known)
    if len(args) > most or unknown:
        what = f"{unknown[0]}=" if unknown else f"{len(args)} values without a name" if most else "no value without a name"
        raise SecurityError(
            f"{name} takes {'no ' if unknown else 'not ' if most else ''}{what} in a template: compute it in the cell above"
        )
    if kind == "array" and any(isinstance(a, CONTAINERS) for a in args):
        raise SecurityError(f"{name} takes a number in a template: compute it in the cell above")
    if name == "contains" and kwargs.get("regex", True):
        pattern = args[0] if args else kwargs.get("pat", "")
        if not isinstance(pattern, str) or _PATTERN.search(pattern):
            raise SecurityError(
                "contains looks for a text in a template, not for a pattern: write regex=false, or compute it in the cell above"
            )
    for argument in (*args, *kwargs.values()) if name == "strftime" else ():
        check_spec(str(argument))
    if printing:
        for keyword, value in kwargs.items():
            numbers = re.findall(r"\d+", value) if isinstance(value, str) else [value] if keyword in ("indent", "border") and value else []
            if any(int(n) > 100 for n in numbers) and keyword not in ("columns", "index_label", "header", "headers"):
                raise TooMuch(f"{name}: {keyword} is too large")


def _check_numbers(owner: Any, name: str, numeric_only: bool) -> None:
    dtypes = list(owner.dtypes) if kind_of(owner) == "frame" else [owner.dtype]
    if not numeric_only and any(getattr(t, "kind", "O") not in "biufcmM" for t in dtypes):
        hint = (
            ": write numeric_only=true, or compute it in the cell above" if kind_of(owner) == "frame" else ": compute it in the cell above"
        )
        raise SecurityError(f"{name} of a column that is not of numbers{hint}")


# -- printing ----------------------------------------------------------------------------------------------------------------
def _printable(value: Any, allowance: Allowance, convert: Convert, *, padded: bool, whole_numbers: bool) -> Any:
    """The frame or series with every cell a text, a number or a date. `padded`: each column as wide as its widest cell; `whole_numbers`:
    floats as texts of all their digits, where pandas would round them to the six of its display.
    """
    check_size(value)
    frame = exact_frame(value.to_frame() if kind_of(value) == "series" else value.copy(deep=False))
    rows, plain, wide, longest = len(frame), 0, 0, 0
    if whole_numbers and getattr(frame.index.dtype, "kind", "O") == "f":
        frame.index = [_digits(label) for label in frame.index.tolist()]
    columns = [frame.index.to_series(), *(frame.iloc[:, place] for place in range(frame.shape[1]))]
    for place, column in enumerate(columns, -1):
        lengths = [CELL_CHARS] * rows
        kind = getattr(column.dtype, "kind", "O")
        if kind not in "biufcmM" or (whole_numbers and kind == "f"):
            cells = column.tolist()
            converted = [c if isinstance(c, str) else convert(c) for c in cells]
            if whole_numbers:
                converted = list(map(_digits, converted))
            lengths = [len(c) if isinstance(c, str) else _length(c) for c in converted]
            if place >= 0 and any(new is not old for new, old in zip(converted, cells, strict=True)):
                frame.isetitem(place, _objects(converted, column))
        plain += sum(lengths)
        wide += max(lengths, default=0) * rows
        longest = max(longest, *lengths, 0)
    allowance.make(wide if padded else plain, longest)
    return frame if kind_of(value) == "frame" else frame.iloc[:, 0]


def _digits(cell: Any) -> Any:
    return str(cell) if isinstance(cell, float) and cell == cell else cell  # noqa: PLR0124 - NaN is the one value that is not itself


def _objects(cells: list[Any], column: Any) -> Any:
    """Cells in the place of a column's, as they are: of a list pandas would guess a dtype, and round or widen by that."""
    objects = column.astype(object)
    for place, cell in enumerate(cells):
        objects.iat[place] = cell
    return objects.array


def _length(value: Any) -> int:
    size = measure(value)
    return CELL_CHARS + size.chars + 4 * size.items
