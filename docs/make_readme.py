"""Run the README's python blocks and put their output and the figure in place.

    python docs/make_readme.py            from anywhere, with saem installed

What a block prints goes between the markers ``<!-- output:NAME -->`` and
``<!-- /output:NAME -->`` that follow it. tests/test_readme.py checks that it is still true.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n<!-- output:(?P<name>\w+) -->\n.*?<!-- /output:(?P=name) -->\n)?",
    re.M | re.S,
)


def main() -> None:
    """Rewrite README.md and docs/images/."""
    readme = ROOT / "README.md"
    scope: dict[str, Any] = {}

    def filled(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match["code"], str(readme), "exec"), scope)
        text = f"```python\n{match['code']}```\n"
        if match["name"]:
            lines = "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())
            name = match["name"]
            text += f"\n<!-- output:{name} -->\n```text\n{lines}\n```\n<!-- /output:{name} -->\n"
        return text

    text = BLOCK.sub(filled, readme.read_text(encoding="utf-8"))
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    scope["fit"].plot.convergence().savefig(images / "convergence.png", dpi=100)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
