"""What is known about each data set: the source of the attributes of the frames."""

from __future__ import annotations

from dataclasses import dataclass

from ._simulated_pk import DOSE, SEED, TIMES_8, TRUTH

_R = "R 4.2.2, package `datasets`"
_GPL = "GPL-2 | GPL-3 (as part of R)"
_NUMBER = "label"  # unit of a column that names rather than measures


@dataclass(frozen=True)
class Entry:
    """Description of one data set.

    Parameters
    ----------
    title, description, source, licence : str
        Prose for people; `source` ends with the original publication.
    columns : dict of str to (str, str)
        For each column, in order, its unit and its meaning.
    id : str or None
        Column that names the individual; None if every row is one.
    truth : dict of str to float, optional
        Parameters of a simulated set.
    """

    title: str
    description: str
    source: str
    licence: str
    columns: dict[str, tuple[str, str]]
    id: str | None = None
    truth: dict[str, float] | None = None


CATALOGUE: dict[str, Entry] = {
    "theophylline": Entry(
        title="Pharmacokinetics of theophylline",
        description=(
            "Serum concentrations of 12 subjects over 25 hours after one oral dose. The pre-dose "
            "row of each subject (time 0, 12 of the original 132 rows) is left out: the model "
            "predicts 0 there whatever the parameters. Dose is in mg: the original mg/kg times "
            "the weight, rounded to 3 decimals. Subjects are in numeric order."
        ),
        source=f"{_R}, `Theoph`. Boeckmann, A. J., Sheiner, L. B. and Beal, S. L. (1994), NONMEM "
        "Users Guide: Part V, University of California, San Francisco.",
        licence=_GPL,
        columns={
            "Subject": (_NUMBER, "subject"),
            "Wt": ("kg", "body weight"),
            "Dose": ("mg", "oral dose given at time 0"),
            "Time": ("h", "time since the dose"),
            "conc": ("mg/L", "theophylline concentration in serum"),
        },
        id="Subject",
    ),
    "orange": Entry(
        title="Growth of orange trees",
        description="Trunk circumference of 5 trees at 7 ages; trees in numeric order.",
        source=f"{_R}, `Orange`. Draper, N. R. and Smith, H. (1998), Applied Regression Analysis "
        "(3rd ed.), Wiley, exercise 24.N.",
        licence=_GPL,
        columns={
            "Tree": (_NUMBER, "tree"),
            "age": ("day", "age, counted from 1968-12-31"),
            "circumference": ("mm", "trunk circumference, probably at breast height"),
        },
        id="Tree",
    ),
    "loblolly": Entry(
        title="Growth of Loblolly pines",
        description="Heights of 14 trees of different seed sources at 6 ages; in order of seed.",
        source=f"{_R}, `Loblolly`. Kung, F. H. (1986), Fitting logistic growth curve with "
        "predetermined carrying capacity, Proceedings of the Statistical Computing Section, "
        "American Statistical Association, 340-343.",
        licence=_GPL,
        columns={
            "Seed": (_NUMBER, "seed source, one tree each"),
            "age": ("year", "age of the tree"),
            "height": ("ft", "height of the tree"),
        },
        id="Seed",
    ),
    "indometh": Entry(
        title="Pharmacokinetics of indomethacin",
        description=(
            "Plasma concentrations of 6 subjects over 8 hours after an intravenous injection; the "
            "dose is not in the source. Subjects are in numeric order."
        ),
        source=f"{_R}, `Indometh`. Kwan, Breault, Umbenhauer, McMahon and Duggan (1976), Kinetics "
        "of indomethacin absorption, elimination, and enterohepatic circulation in man, Journal "
        "of Pharmacokinetics and Biopharmaceutics 4, 255-280.",
        licence=_GPL,
        columns={
            "Subject": (_NUMBER, "subject"),
            "time": ("h", "time since the injection"),
            "conc": ("ug/mL", "indomethacin concentration in plasma"),
        },
        id="Subject",
    ),
    "old_faithful": Entry(
        title="Eruptions of the Old Faithful geyser",
        description=(
            "Duration of 272 eruptions and the wait until the next, Yellowstone National Park. "
            "Durations were recorded in rounded seconds."
        ),
        source=f"{_R}, `faithful`. Haerdle, W. (1991), Smoothing Techniques with Implementation "
        "in S, Springer.",
        licence=_GPL,
        columns={
            "eruptions": ("min", "duration of the eruption"),
            "waiting": ("min", "waiting time to the next eruption"),
        },
    ),
    "iris": Entry(
        title="Edgar Anderson's iris data",
        description=(
            "Four measurements of 50 flowers of each of three species of iris. Columns are named "
            "sepal_length for the original Sepal.Length, and so on."
        ),
        source=f"{_R}, `iris`. Fisher, R. A. (1936), The use of multiple measurements in taxonomic "
        "problems, Annals of Eugenics 7, 179-188; collected by Anderson, E. (1935), The irises of "
        "the Gaspe Peninsula, Bulletin of the American Iris Society 59, 2-5.",
        licence=_GPL,
        columns={
            "sepal_length": ("cm", "length of the sepal"),
            "sepal_width": ("cm", "width of the sepal"),
            "petal_length": ("cm", "length of the petal"),
            "petal_width": ("cm", "width of the petal"),
            "species": (_NUMBER, "setosa, versicolor or virginica"),
        },
    ),
    "simulated_pk": Entry(
        title="Simulated oral pharmacokinetics with known truth",
        description=(
            f"100 subjects, 8 samples each over 24 hours after an oral dose of {DOSE:g} mg; one "
            "compartment, log-normal ka, V and CL, independent, proportional error. "
            "simulate_pk() makes larger sets of the same kind."
        ),
        source=f"simulate_pk(100, times={TIMES_8}, seed={SEED}).",
        licence="BSD-3-Clause (as saem)",
        columns={
            "id": (_NUMBER, "subject"),
            "time": ("h", "time since the dose"),
            "amt": ("mg", "oral dose given at time 0"),
            "dv": ("mg/L", "concentration"),
        },
        id="id",
        truth=TRUTH,
    ),
}
