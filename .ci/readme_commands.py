"""Print the set-up commands of a README, one a line.

They are the lines of the first ```sh block under the heading "## Set up"; there must be two.
"""

import re
import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    section = re.search(r"^## Set up\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if section is None:
        raise SystemExit("README: no heading '## Set up'")
    block = re.search(r"^```sh\n(.*?)^```$", section[1], re.M | re.S)
    if block is None:
        raise SystemExit("README: no ```sh block under '## Set up'")
    lines = [line.strip() for line in block[1].splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if len(found) != 2:
        raise SystemExit(f"README: '## Set up' must hold two commands, not {len(found)}: {found}")
    return found


if __name__ == "__main__":
    print(*commands(Path(sys.argv[1]).read_text(encoding="utf-8")), sep="\n")
