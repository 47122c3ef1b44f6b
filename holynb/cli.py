"""The console command: `holynb demo | pool | bench | prices | …`. Parses and prints; the work is elsewhere."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from holynb.errors import BadOption, HolynbError, UserError
from holynb.words import counted

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0: done; 1: something is missing or failed; 2: a usage error; 130: interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args[:1] == ["pool"]:
            # Parsed as `%infer pool`, which has its own help and messages.
            return _pool(args[1:])
        if args[:1] in (["prices"], ["models"]):
            # As `%infer prices` and `%infer models`.
            return _tables(args[0], args[1:])
        if args[:1] == ["bench"]:
            # Parsed as `%infer bench`; its options are those of a cell.
            return _bench(args[1:])
        namespace = _parser().parse_args(args)
        handler: Callable[[argparse.Namespace], int] = namespace.handler
        return handler(namespace)
    except UserError as exc:
        print(f"holynb: {_say(exc)}", file=sys.stderr)
        return 2
    except HolynbError as exc:
        print(f"holynb: {_say(exc)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `holynb … | head` closed the pipe. Without this, Python reports the broken pipe again at exit.
        sys.stderr.close()
        return 0


def _say(text: object) -> str:
    """A text or an error in the user's language, in which commands are known as a notebook has them."""
    from holynb import translation
    from holynb.config import language

    translation.choose(language.chosen)
    return translation.say(str(text).replace("holynb pool ", "%infer pool ")).replace("%infer pool ", "holynb pool ")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="holynb", description="Prompts through models, from notebooks. In a notebook: %load_ext holynb")
    parser.add_argument("--version", action="version", version=f"holynb {_version()}")
    parser.set_defaults(handler=_help)
    commands = parser.add_subparsers(metavar="COMMAND")

    demo = commands.add_parser("demo", help="a complete example on the embedded model: no key and no GPU needed")
    demo.add_argument("-n", "--rows", type=int, default=None, metavar="N", help="at most N rows")
    demo.add_argument("--keep", action="store_true", help="leave the pool running afterwards")
    demo.set_defaults(handler=_demo)

    commands.add_parser("pool", help="local models in their own processes: plan, start, list, status, stop, logs (--json for scripts)")

    commands.add_parser("bench", help="compare routes on the same prompts (--json for scripts)")

    commands.add_parser("prices", help="how old the prices are; update: fetch newer ones and show what would change; --take: apply them")

    commands.add_parser("models", help="routes with their prices and end dates; update: as for prices")

    reference = commands.add_parser("reference", help="every option, column, word of %%infer, setting and variable, as Markdown")
    reference.set_defaults(handler=_reference)

    kernel = commands.add_parser("kernel", help="install or uninstall a Jupyter kernel that starts with holynb loaded")
    kernel.add_argument("word", choices=["install", "uninstall"])
    kernel.set_defaults(handler=_kernel)

    doctor = commands.add_parser("doctor", help="check what works on this machine, with the command that fixes what does not")
    doctor.add_argument("--json", action="store_true", help="output for scripts")
    doctor.add_argument(
        "--ask", action="store_true", help="also ask each provider whose key is there: shows a wrong key, or a blocked network"
    )
    doctor.set_defaults(handler=_doctor)
    return parser


def _help(_: argparse.Namespace) -> int:
    _parser().print_help()
    return 0


def _reference(_: argparse.Namespace) -> int:
    from holynb.ui import line_magic

    print(line_magic.reference_page(), end="")
    return 0


def _version() -> str:
    from holynb import __version__

    return __version__


def _demo(args: argparse.Namespace) -> int:
    from holynb import demo

    demo.main(args.rows, keep=args.keep)
    return 0


def _pool(args: list[str]) -> int:
    from holynb.ui.cell import said
    from holynb.ui.commands import pool
    from holynb.ui.output import listing

    as_json, words = "--json" in args, [a for a in args if a != "--json"]
    parts, data = pool.answer(words, _ignore_notice if as_json else _print_notice, command="holynb pool")
    notes = [p for p in parts if isinstance(p, listing.Remark)]
    if as_json:
        print(json.dumps(data, default=str))
    elif len(notes) < len(parts):
        print(_say(listing.as_text([p for p in parts if not isinstance(p, listing.Remark)], said.terminal_width())), flush=True)
    for note in notes if not as_json else ():
        _print_notice(_say(note))
    # A script asks by the exit code whether it fits. The help of a plan is no plan.
    return 1 if words[:1] == ["plan"] and isinstance(data, dict) and not data["ways"] else 0


def _tables(word: str, args: list[str]) -> int:
    from holynb.ui.cell import said
    from holynb.ui.commands import models
    from holynb.ui.output import listing
    from holynb.ui.output.helplines import wrapped

    if {"-h", "--help"} & set(args):
        first = f"holynb {word}{' [PROVIDER] [--api-base URL]' if word == 'models' else ''}"
        what = wrapped(f"update: fetch newer {word} and show what would change; --take: apply them; --remove: go back to the shipped ones.")
        print(f"usage: {first}\n       holynb {word} update [--take] [--from ADDRESS] [--remove]\n\n{what}")
        return 0
    print(listing.as_text(models.command(word, args), said.terminal_width(), models.GAP).replace("%infer ", "holynb "))
    return 0


def _print_notice(text: str) -> None:
    print(text, file=sys.stderr)


def _ignore_notice(text: str) -> None:
    """For `--json`, where only the result is printed."""


def _bench(args: list[str]) -> int:
    from holynb.run import measure
    from holynb.ui.cell import said
    from holynb.ui.commands import bench, bench_report

    if not args or {"-h", "--help"} & set(args):
        print(f"usage: holynb bench R1,R2 [options] [--json]\n\nThe same prompts over several routes, side by side.\n{bench.HELP}")
        return 0
    as_json = "--json" in args
    benchmark = bench.parse_args([a for a in args if a != "--json"], {})
    results = []
    for result in measure(benchmark):
        results.append(result)
        if not as_json:
            _print_notice(
                f"{result.route}: {result.ok:,} of {counted(result.rows, 'row')} answered" + (f" ({result.error})" if result.error else "")
            )
    print(json.dumps([asdict(m) for m in results]) if as_json else bench_report.as_text(results, said.terminal_width()))
    return int(not any(m.ok for m in results))


def _kernel(args: argparse.Namespace) -> int:
    from kernels_support.jupyter import spec

    try:
        if args.word == "install":
            path: Any = spec.install(spec.KernelSpec("holynb", "Python 3 (holynb)", "holynb"))
            print(f"Installed the kernel 'Python 3 (holynb)' in {path}. Remove it: holynb kernel uninstall")
        else:
            path = spec.uninstall("holynb")
            print(f"Removed {path}." if path else "No holynb kernel is installed.")
    except ImportError as exc:
        raise BadOption("Kernels need Jupyter: pip install 'holynb[lab]'") from exc
    except OSError as exc:
        raise BadOption(f"Cannot write to the kernel's folder: {exc}. Use your own environment: python -m venv .venv") from exc
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from holynb import doctor

    checks = doctor.checks(ask=args.ask)
    print(json.dumps([c.as_dict() for c in checks]) if args.json else doctor.text(checks, _say))
    return int(any(c.state == "broken" for c in checks))


if __name__ == "__main__":
    sys.exit(main())
