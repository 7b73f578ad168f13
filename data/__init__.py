"""Data sets with provenance, licence, units and the meaning of every column.

Examples
--------
>>> import saem
>>> theo = saem.datasets.load("theophylline")
>>> theo.shape
(120, 5)
>>> theo.attrs["units"]["conc"]
'mg/L'
"""

if __name__ != "saem.datasets":  # a second copy under another name would go unnoticed
    raise ImportError(
        f"this folder is the package saem.datasets and cannot be imported as {__name__!r}; "
        "install saem and `import saem.datasets`"
    )

from ._load import list_datasets as list
from ._load import load
from ._simulated_pk import simulate_pk

__all__ = ["list", "load", "simulate_pk"]
