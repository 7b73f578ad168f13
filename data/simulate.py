"""Write simulated_pk.csv again: ``python -m saem.datasets.simulate > data/simulated_pk.csv``."""

import sys
from typing import TextIO

from ._simulated_pk import TIMES_8, simulate_pk


def main(out: TextIO) -> None:
    """Write the shipped set to `out`."""
    simulate_pk(100, times=TIMES_8).to_csv(out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main(sys.stdout)
