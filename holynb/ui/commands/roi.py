"""`%infer roi`: its words, and what it leaves: the monthly table, where own GPUs become cheaper, and one sentence of advice. Calculates nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from holynb.config import Option, integer, number
from holynb.errors import BadOption, closest
from holynb.results import dollars
from holynb.ui.cell import grammar
from holynb.ui.output import clean, grid

if TYPE_CHECKING:
    from holynb.pricing import OwnGpus, Roi, RoiLine, Workload

__all__ = ["HELP", "as_html", "as_text", "asked", "leave", "spec", "table"]

#: The load and the list of the article this project began with.
PER_DAY, TOKENS, PROVIDER = 10_000, "333..667", "holysheep"

OWN = (
    Option("per_day", ("--requests-per-day",), "N", "requests a day (10,000)", integer(1)),
    Option("tokens", ("--tokens",), "A..B", "tokens of a request, input and output together (333..667)"),
    Option("out_share", ("--out-share",), "X", "the share of them that is output (0.5)", number(0, 1)),
    Option("provider", ("--provider",), "NAME", "the list to compare, where no routes are named (holysheep)"),
    Option("own", ("--own",), "GPUS", "your own: 4xA100-80GB; needs --per-hour"),
    Option("per_hour", ("--per-hour",), "USD", "what one of them costs an hour, busy or not", number(0, open_low=True)),
    Option("speed", ("--tokens-per-s",), "N", "tokens a second they make together, in and out", number(0, open_low=True)),
    Option("measured", ("--measured",), "pool/NAME", "take that speed from the newest run of 8 rows or more on this route"),
    Option("utilisation", ("--utilisation",), "X", "share of the time they are busy (0.5)", number(0, 1, open_low=True)),
)
FLAGS: Mapping[str, Option] = {f: o for o in OWN for f in o.flags}
FLAGS_BY_NAME: Mapping[str, Option] = {o.name: o for o in OWN}
HELP = "\n".join(f"  {o.flags[0] + ' ' + (o.metavar or ''):<28} {o.help}" for o in OWN)
HEAD = ("route", "$/M in", "$/M out", "a month", "saved against own", "own cheaper from")
#: Dtypes of the frame, whatever is known.
COLUMNS = {
    "route": "string",
    "input": "Float64",
    "output": "Float64",
    "month_low": "Float64",
    "month_high": "Float64",
    "saving_low": "Float64",
    "saving_high": "Float64",
    "flips_at": "Int64",
    "assumed": "string",
}


# -- the words ---------------------------------------------------------------------------------------------------------
def asked(words: Sequence[str]) -> Roi:
    """The comparison that the words of the line ask for. Raises UserError."""
    from holynb.config import settings
    from holynb.pricing import roi

    said, left = grammar.words(words, FLAGS)
    value = {name: _value(FLAGS_BY_NAME[name], text) for name, text in said.items()}
    if left and "provider" in value:
        raise BadOption("%infer roi takes routes, or --provider NAME for all that it lists, not both.")
    load = roi.Workload(value.get("per_day", PER_DAY), roi.parse_tokens(value.get("tokens", TOKENS)), value.get("out_share", 0.5))
    named = [settings.route(r.strip()) for word in left for r in word.split(",") if r.strip()]
    return roi.roi(load, named or roi.listed_routes(value.get("provider", PROVIDER)), _own(value))


def _value(option: Option, text: Any) -> Any:
    if option.convert is None:
        return text
    try:
        return option.convert(text)
    except (TypeError, ValueError) as exc:
        raise BadOption(f"{option.flags[0]} takes {option.convert.__name__}, not {text!r}.") from exc


def _own(value: Mapping[str, Any]) -> OwnGpus | None:
    from holynb.pricing import roi

    if "own" not in value:
        if beside := [f"--{n}" for n in ("per-hour", "tokens-per-s", "measured", "utilisation") if _name(n) in value]:
            raise BadOption(f"{beside[0]} is about GPUs of your own: name them with --own 4xA100-80GB.")
        return None
    if "per_hour" not in value:
        raise BadOption(f"--own {value['own']} needs --per-hour USD: what one of these devices costs an hour, busy or not.")
    devices, name = roi.parse_own(value["own"])
    try:
        hourly = Decimal(str(value["per_hour"]))
    except InvalidOperation as exc:
        raise BadOption(f"--per-hour takes dollars, not {value['per_hour']!r}.") from exc
    speed, told = _speed(value)
    use = "" if "utilisation" in value else "how busy is assumed"
    return roi.OwnGpus(devices, name, hourly, speed, value.get("utilisation", 0.5), ", ".join(t for t in (told, use) if t))


def _name(flag: str) -> str:
    return {"tokens-per-s": "speed", "per-hour": "per_hour"}.get(flag, flag)


def _speed(value: Mapping[str, Any]) -> tuple[float | None, str]:
    """Tokens a second, and what to say of where they come from."""
    from holynb import runlog
    from holynb.config import settings
    from holynb.pricing import spending

    if "measured" not in value:
        return value.get("speed"), "" if "speed" in value else "speed not measured, taken to be enough"
    if "speed" in value:
        raise BadOption("--measured and --tokens-per-s both say the speed. Give one of them.")
    route = settings.route(value["measured"])
    found = spending.speed(runlog.log(), route)
    if found is None:
        known = sorted({r.route for r in runlog.log().runs()} - {str(route)})
        raise BadOption(
            f"--measured {route}: the run log has no run of 8 rows or more there.{closest(str(route), known)} Measure it: %infer bench {route}"
        )
    told = f"speed as {route} made it over {found.rows:,} rows in run {found.run}, so compare routes whose work that model does well enough"
    return found.tokens_per_s, told


# -- what it leaves ------------------------------------------------------------------------------------------------------
def leave(shell: Any, made: Roi) -> Any:
    """Show the table, and the figure where widgets work; the frame is the value."""
    from IPython.display import display

    from holynb.ui.cell import displayhook, views
    from holynb.ui.output.plots import MIME
    from kernels_support.jupyter.capabilities import detect

    frame = table(made)
    page = views.plain(shell)
    if isinstance(page, views.Terminal):
        displayhook.already(shell, frame, as_text(made))
        return frame
    page.end({"text/html": as_html(made), "text/plain": as_text(made)})
    if detect(shell).widgets and any(line.month for line in made.lines):
        display({MIME: spec(made), "text/plain": "Dollars a month by requests a day."}, raw=True)  # type: ignore[no-untyped-call]
    displayhook.already(shell, frame)
    return frame


def table(made: Roi) -> Any:
    """The lines as a frame: dollars per million tokens, dollars a month, savings as shares."""
    from holynb.results import frame

    def ends(pair: tuple[Decimal, Decimal] | None, i: int) -> float | None:
        return None if pair is None else float(pair[i])

    rows = [
        (
            str(line.route),
            _float(line.input),
            _float(line.output),
            ends(line.month, 0),
            ends(line.month, 1),
            ends(line.saving, 0),
            ends(line.saving, 1),
            line.break_even_requests,
            line.assumed or None,
        )
        for line in made.lines
    ]
    return frame.from_columns({name: (dtype, [row[i] for row in rows]) for i, (name, dtype) in enumerate(COLUMNS.items())}, "route")


def as_text(made: Roi) -> str:
    """The table for a terminal, what stands behind it, and the advice."""
    return "\n".join(
        [_title(made.load), grid(_head(made.own), [_cells(line, made.own) for line in made.lines]), *_notes(made), made.advice]
    )


def as_html(made: Roi) -> str:
    """The same for a page."""
    from holynb.ui.output.static import OPEN_TAG, STYLE

    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag} class={'n' if i else 'k'}>{html.escape(clean(c))}</{tag}>" for i, c in enumerate(cells)) + "</tr>"

    body = "".join(row("td", _cells(line, made.own)) for line in made.lines)
    notes = "".join(f'<div class="holynb-head holynb-note">{html.escape(clean(n))}</div>' for n in _notes(made))
    return (
        f'{OPEN_TAG}{STYLE}<div class="holynb-head">{html.escape(_title(made.load))}</div><div class="holynb-rows"><table>'
        f'<thead>{row("th", _head(made.own))}</thead><tbody>{body}</tbody></table></div>{notes}<div class="holynb-head"><b>{html.escape(clean(made.advice))}</b></div></div>'
    )


def _title(load: Workload) -> str:
    low, high = load.month
    tokens = f"{load.tokens[0]:,.0f}" + (f" to {load.tokens[1]:,.0f}" if load.tokens[1] != load.tokens[0] else "")
    span = f"{low / 1_000_000:,.0f}" + (f" to {high / 1_000_000:,.0f}" if high != low else "")
    return f"{load.requests_per_day:,.0f} requests a day of {tokens} tokens: {span} million tokens in {load.days} days"


def _cells(line: RoiLine, own: OwnGpus | None) -> list[str]:
    said = [str(line.route), _rate(line.input), _rate(line.output), _span(line.month)]
    if own is None:
        return said
    flips = (
        ""
        if line.month is None
        else "never"
        if line.break_even_requests is None
        else f"{float(f'{line.break_even_requests:.3g}'):,.0f} a day"
    )
    return [*said, _saving(line.saving), flips]


def _head(own: OwnGpus | None) -> Sequence[str]:
    """Without own GPUs there is nothing to compare with."""
    return HEAD if own is not None else HEAD[:4]


def _notes(made: Roi) -> list[str]:
    from holynb.pricing import ARTICLE, round_dollars

    notes = []
    if made.own is not None:
        own = made.own
        speed = "" if own.tokens_per_s is None else f", {own.tokens_per_s:,.0f} tokens/s"
        sets = own.sets(made.load.month[1], made.load.days)
        more = f", {sets} such sets for this load" if sets > 1 else ""
        each = f", at best ${float(made.own_per_million):,.4g} per million tokens" if made.own_per_million is not None else ""
        notes.append(
            f"Own: {own} at {dollars(own.per_device_hour)} an hour each, busy {own.utilisation:.0%} of the time{speed}: {_span(made.own_month)} a month"
            f"{more}{each}" + (f" ({own.assumed})." if own.assumed else ".")
        )
    notes += [f"Assumed for {', '.join(routes)}: {said}." for said, routes in _assumed(made.lines).items()]
    services = ", ".join(f"{name} from {round_dollars(month)}" for name, month in ARTICLE)
    notes.append(f"Managed services, as the article that this table comes from says, not measured here: {services} a month.")
    return notes


def _assumed(lines: Sequence[RoiLine]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.assumed:
            found.setdefault(line.assumed, []).append(str(line.route))
    return found


def _span(pair: tuple[Decimal, Decimal] | None) -> str:
    from holynb.pricing import round_dollars

    if pair is None:
        return "?"
    low, high = map(round_dollars, pair)
    return low if low == high else f"{low} to {high}"


def _saving(pair: tuple[Decimal, Decimal] | None) -> str:
    """`58 to 79 %`; where own GPUs are the cheaper ones, how many times their cost the route is."""
    if pair is None:
        return ""
    if pair[1] < 0:
        low, high = (f"{1 - p:,.1f}" for p in reversed(pair))
        return f"{low} × own" if low == high else f"{low} to {high} × own"
    # What is almost everything is not everything: 99.8, not 100.
    places = 1 if any(Decimal("0.995") <= p < 1 for p in pair) else 0
    low, high = (f"{min(p * 100, Decimal('99.9')) if places and p < 1 else p * 100:,.{places}f}" for p in pair)
    return (f"{low} %" if low == high else f"{low} to {high} %").replace("-", "\N{MINUS SIGN}")


def _rate(value: Decimal | None) -> str:
    return "?" if value is None else f"{value.normalize():f}"


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def spec(made: Roi) -> dict[str, Any]:
    """Dollars a month by requests a day, from a hundredth to a hundred times the load, as a figure in plotly's JSON."""
    from holynb.ui.output import COLOURS
    from holynb.ui.output.plots import CONFIG, INK, RULE

    load = made.load
    days = [load.requests_per_day * 10 ** (k / 8) for k in range(-16, 17)]
    middle = sum(load.month, Decimal(0)) / 2 / Decimal(str(load.requests_per_day))
    data = []
    for i, line in enumerate(x for x in made.lines if x.month is not None):
        low, high = line.month or (Decimal(0), Decimal(0))
        each = float(low + high) / 2 / load.requests_per_day
        data.append(_trace(str(line.route), days, [each * d for d in days], COLOURS[i % len(COLOURS)]))
    if (own := made.own) is not None:
        steps = [float(own.sets(middle * Decimal(str(d)), load.days) * own.month(load.days)) for d in days]
        data.append({**_trace(str(own), days, steps, INK), "line": {"color": INK, "width": 2, "dash": "dash", "shape": "hv"}})
    axis = {"type": "log", "dtick": 1, "gridcolor": RULE, "linecolor": RULE, "zeroline": False}
    layout = {
        "height": 340,
        "margin": {"l": 60, "r": 8, "t": 36, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "hovermode": "x",
        "xaxis": {**axis, "title": {"text": "requests a day"}},
        "yaxis": {**axis, "tickprefix": "$", "title": {"text": "a month"}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return {"data": data, "layout": layout, "config": CONFIG}


def _trace(name: str, xs: Sequence[float], ys: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [float(f"{x:.4g}") for x in xs],
        "y": [float(f"{y:.4g}") for y in ys],
        "line": {"color": colour, "width": 1.8},
    }
