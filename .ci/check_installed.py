"""Check an installed saem: it is not the checkout, and its mapped packages are there."""

import sys
from importlib.metadata import version
from pathlib import Path

import saem

checkout = Path(sys.argv[1])
assert not Path(saem.__file__).is_relative_to(checkout), saem.__file__
assert saem.__version__ == version("saem")
sets, models = saem.datasets.list()["name"], saem.models.__all__
for name in sets:
    assert saem.datasets.load(name).attrs["name"] == name
for name in models:
    assert getattr(saem.models, name).__module__.startswith("saem.models.")
print(f"saem {saem.__version__}: {len(sets)} data sets, {len(models)} models")
