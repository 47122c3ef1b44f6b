"""The console: `holynb demo | pool … | bench … | kernel install|uninstall | doctor`. Parses words and prints; the work is elsewhere."""

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
    """Run a command. 0: done; 1: something is missing or failed; 2: a mistake on the line; 130: interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["pool"]:
            # The words of `%infer pool`, which has its own help and its own messages.
            return _pool(words[1:])
        if words[:1] == ["bench"]:
            # The words of `%infer bench`; its options are a cell's.
            return _bench(words[1:])
        said = _parser().parse_args(words)
        does: Callable[[argparse.Namespace], int] = said.does
        return does(said)
    except UserError as exc:
        print(f"holynb: {exc}", file=sys.stderr)
        return 2
    except HolynbError as exc:
        print(f"holynb: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `holynb … | head`: whoever read has had enough. Closed here, or Python would say so at its end.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="holynb", description="Prompts through models, from notebooks. In a notebook: %load_ext holynb")
    parser.add_argument("--version", action="version", version=f"holynb {_version()}")
    parser.set_defaults(does=_help)
    commands = parser.add_subparsers(metavar="COMMAND")

    demo = commands.add_parser("demo", help="the main job end to end on the embedded model: no key, no GPU")
    demo.add_argument("-n", "--rows", type=int, default=None, metavar="N", help="at most N rows")
    demo.add_argument("--keep", action="store_true", help="leave the pool running afterwards")
    demo.set_defaults(does=_demo)

    commands.add_parser("pool", help="plan, start, list, status, stop, logs: local models in processes of their own (--json for machines)")

    commands.add_parser("bench", help="the same prompts over several routes, side by side (--json for machines)")

    kernel = commands.add_parser("kernel", help="a kernel in Jupyter's launcher that starts with holynb loaded")
    kernel.add_argument("word", choices=["install", "uninstall"])
    kernel.set_defaults(does=_kernel)

    doctor = commands.add_parser("doctor", help="what works on this machine, and the one command that changes what does not")
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.set_defaults(does=_doctor)
    return parser


def _help(_: argparse.Namespace) -> int:
    _parser().print_help()
    return 0


def _version() -> str:
    from holynb import __version__

    return __version__


def _demo(said: argparse.Namespace) -> int:
    from holynb import demo

    demo.main(said.rows, keep=said.keep)
    return 0


def _pool(words: list[str]) -> int:
    from holynb.ui.commands import pool

    as_json = "--json" in words
    text, data = pool.run([w for w in words if w != "--json"], _silent if as_json else _notice, command="holynb pool")
    print(json.dumps(data, default=str) if as_json else text)
    return 0


def _notice(text: str) -> None:
    print(text, file=sys.stderr)


def _silent(text: str) -> None:
    """Machines read the result alone."""


def _bench(words: list[str]) -> int:
    from holynb.run import measure
    from holynb.ui.commands import bench

    if not words or {"-h", "--help"} & set(words):
        print(f"usage: holynb bench R1,R2 [options] [--json]\n\nThe same prompts over several routes, side by side.\n{bench.HELP}")
        return 0
    as_json = "--json" in words
    what = bench.asked([w for w in words if w != "--json"], {})
    found = []
    for one in measure(what):
        found.append(one)
        if not as_json:
            _notice(f"{one.route}: {one.ok:,} of {counted(one.rows, 'row')} answered" + (f" ({one.error})" if one.error else ""))
    print(json.dumps([asdict(m) for m in found]) if as_json else bench.as_text(found))
    return int(not any(m.ok for m in found))


def _kernel(said: argparse.Namespace) -> int:
    from kernels_support.jupyter import spec

    try:
        if said.word == "install":
            place: Any = spec.install(spec.KernelSpec("holynb", "Python 3 (holynb)", "holynb"))
            print(f"Installed the kernel 'Python 3 (holynb)' in {place}. Remove it: holynb kernel uninstall")
        else:
            place = spec.uninstall("holynb")
            print(f"Removed {place}." if place else "There is no holynb kernel here.")
    except ImportError as exc:
        raise BadOption("Kernels need Jupyter: pip install 'holynb[lab]'") from exc
    except OSError as exc:
        raise BadOption(f"The kernel's folder cannot be written: {exc}. Use an environment of your own: python -m venv .venv") from exc
    return 0


def _doctor(said: argparse.Namespace) -> int:
    from holynb import doctor

    checks = doctor.checks()
    print(json.dumps([c.as_dict() for c in checks]) if said.json else doctor.text(checks))
    return int(any(c.state == "broken" for c in checks))


if __name__ == "__main__":
    sys.exit(main())
