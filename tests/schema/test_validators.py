"""jsonschema loads without the grammar that it would make for a format of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
from holynb.schema import validators
jsonschema = validators.library()
print("loaded")
print([jsonschema.FormatChecker(["iri"]).conforms(text, "iri") for text in ("http://ü", "no")])
assert validators.library() is jsonschema
"""


def test_a_grammar_that_nobody_asks_for_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "rfc3987_syntax.py").write_text(
        "print('made')\ndef is_valid_syntax(term, value):\n    return (term, value) == ('iri', 'http://ü')\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["loaded", "made", "[True, False]"]
