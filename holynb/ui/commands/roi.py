"""`%infer roi`: its arguments, and the display of API prices compared with own GPUs. Calculates and draws nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holynb.config import Option, integer, number
from holynb.errors import BadOption, closest
from holynb.ui.cell import grammar
from holynb.ui.commands import roi_report
from holynb.ui.output.helplines import entry

if TYPE_CHECKING:
    from holynb.pricing import OwnGpus, Roi

__all__ = ["HELP", "parse_args", "show"]

#: The load and the price list of the article that this project began with.
DEFAULT_REQUESTS_PER_DAY = 10_000
DEFAULT_TOKENS = "333..667"
DEFAULT_PROVIDER = "holysheep"
#: Assumed shares: of a request's tokens that are output, of the time that own GPUs are busy.
DEFAULT_OUT_SHARE = 0.5
DEFAULT_UTILISATION = 0.5

OPTIONS = (
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
FLAGS: Mapping[str, Option] = {f: o for o in OPTIONS for f in o.flags}
FLAGS_BY_NAME: Mapping[str, Option] = {o.name: o for o in OPTIONS}
HELP = "\n".join(entry(f"{o.flags[0]} {o.metavar or ''}".strip(), o.help, grammar.OPTION_COLUMN) for o in OPTIONS)


def parse_args(args: Sequence[str]) -> Roi:
    """The comparison that the line describes. Raises UserError."""
    from holynb.config import settings
    from holynb.pricing import roi

    texts, positional = grammar.parse_options(args, FLAGS)
    values = {name: _convert(FLAGS_BY_NAME[name], text) for name, text in texts.items()}
    if positional and "provider" in values:
        raise BadOption("%infer roi takes routes, or --provider NAME for all that it lists, not both.")
    load = roi.Workload(
        values.get("per_day", DEFAULT_REQUESTS_PER_DAY),
        roi.parse_tokens(values.get("tokens", DEFAULT_TOKENS)),
        values.get("out_share", DEFAULT_OUT_SHARE),
    )
    routes = [settings.route(r.strip()) for word in positional for r in word.split(",") if r.strip()]
    return roi.roi(load, routes or roi.listed_routes(values.get("provider", DEFAULT_PROVIDER)), _own_gpus(values))


def _convert(option: Option, text: Any) -> Any:
    if option.convert is None:
        return text
    try:
        return option.convert(text)
    except (TypeError, ValueError) as exc:
        raise BadOption(f"{option.flags[0]} takes {option.convert.__name__}, not {text!r}.") from exc


def _own_gpus(values: Mapping[str, Any]) -> OwnGpus | None:
    """The GPUs that `--own` names; None without it. Raises BadOption."""
    from holynb.pricing import roi

    if "own" not in values:
        if misplaced := [f"--{n}" for n in ("per-hour", "tokens-per-s", "measured", "utilisation") if _option_name(n) in values]:
            raise BadOption(f"{misplaced[0]} is about GPUs of your own: name them with --own 4xA100-80GB.")
        return None
    if "per_hour" not in values:
        raise BadOption(f"--own {values['own']} needs --per-hour USD: what one of these devices costs an hour, busy or not.")
    devices, name = roi.parse_own(values["own"])
    hourly = Decimal(str(values["per_hour"]))
    speed, source = _speed(values)
    busy = "" if "utilisation" in values else "how busy is assumed"
    utilisation = values.get("utilisation", DEFAULT_UTILISATION)
    return roi.OwnGpus(devices, name, hourly, speed, utilisation, ", ".join(a for a in (source, busy) if a))


def _option_name(flag: str) -> str:
    return {"tokens-per-s": "speed", "per-hour": "per_hour"}.get(flag, flag)


def _speed(values: Mapping[str, Any]) -> tuple[float | None, str]:
    """Tokens per second (None: unknown), and the note on their source. Raises BadOption."""
    from holynb import runlog
    from holynb.config import settings
    from holynb.pricing import spending

    if "measured" not in values:
        return values.get("speed"), "" if "speed" in values else "speed not measured, taken to be enough"
    if "speed" in values:
        raise BadOption("--measured and --tokens-per-s both set the speed. Use one of them.")
    route = settings.route(values["measured"])
    speed = spending.speed(runlog.log(), route)
    if speed is None:
        others = sorted({r.route for r in runlog.log().runs()} - {str(route)})
        raise BadOption(
            f"--measured {route}: the run log has no run of 8 rows or more there.{closest(str(route), others)} "
            f"Measure it: %infer bench {route}"
        )
    source = (
        f"speed as {route} made it over {speed.rows:,} rows in run {speed.run}, so compare routes whose work that model does well enough"
    )
    return speed.tokens_per_s, source


def show(shell: Any, roi: Roi) -> Any:
    """Show the table, and the figure where widgets work. Returns the frame, which the display hook then does not show a second time."""
    from IPython.display import display

    from holynb.ui.cell import displayhook, said, views
    from holynb.ui.output.plots import MIME
    from kernels_support.jupyter.capabilities import detect

    frame = roi_report.table(roi)
    page = views.text_view(shell)
    if isinstance(page, views.TerminalView):
        displayhook.replace_display(shell, frame, roi_report.as_text(roi, said.terminal_width()))
        return frame
    page.end({"text/html": roi_report.as_html(roi), "text/plain": roi_report.as_text(roi)})
    if detect(shell).widgets and any(line.month for line in roi.lines):
        figure = {MIME: roi_report.figure(roi), "text/plain": "Dollars a month by requests a day."}
        display(figure, raw=True)  # type: ignore[no-untyped-call]
    displayhook.replace_display(shell, frame)
    return frame
