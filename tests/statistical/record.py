"""Print the figures of `docs/validation.md`: ``python tests/statistical/record.py``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import validation
from validation import PROBLEMS, exact_fit, exact_of, judge, sample

from saem.inference.information import louis_information

SEEDS = range(20)
COLUMNS = ["exact", "exact_se", "mean", "sd", "mc_error", "bias_in_se", "worst_in_mc_errors",
           "se_ratio"]  # fmt: skip


def table(frame: pd.DataFrame, first: str) -> str:
    """Rows of a Markdown table, four digits."""
    lines = ["| " + " | ".join([first, *map(str, frame.columns)]) + " |"]
    lines.append("|---" * (1 + frame.shape[1]) + "|")
    for name, row in frame.iterrows():
        cells = ["" if pd.isna(v) else f"{v:.4g}" for v in row]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return "\n".join(lines)


def problem_section(name: str) -> str:
    """Figures of a problem over twenty seeds."""
    problem, answer = PROBLEMS[name], exact_of(name)
    found = sample(problem.make(), SEEDS)
    figures = judge(found, answer)[COLUMNS]
    if problem.yardstick:
        figures["yardstick_sd"] = pd.Series(problem.yardstick)
    loss = answer.llf - found.llf["quadrature"]
    z = (found.llf["importance"] - found.llf["quadrature"]) / found.llf["importance_error"]
    return "\n".join(
        [
            f"### {problem.name[0].upper()}{problem.name[1:]}",
            "",
            table(figures, "parameter"),
            "",
            f"Exact log-likelihood {answer.llf:.4f}; at the estimates of SAEM lower by "
            f"{loss.mean():.4f} on average and {loss.max():.4f} at most. Importance sampling "
            f"reports an error of {found.llf['importance_error'].mean():.4f}; its distance from "
            f"quadrature is {np.sqrt((z**2).mean()):.2f} of that (root mean square), "
            f"{z.abs().max():.2f} at most.",
            "",
        ]
    )


def thousand_section() -> str:
    """Distances from the exact maximum on data of 1000 subjects, several sets and seeds."""
    rows = {}
    for data_seed, seeds in ((1, range(10)), (2, range(3)), (3, range(3))):
        model = validation.thousand(data_seed)
        answer = exact_fit(model, 5)
        se = louis_information(model, answer.theta).bse
        for seed in seeds:
            fit = model.fit("saem", seed=seed, progress=False)
            rows[f"data {data_seed}, seed {seed}"] = (fit.params - answer.params) / se
    lines = ["### A thousand subjects, far start", ""]
    lines.append("Distance from the exact maximum, in exact standard errors:")
    return "\n".join([*lines, "", table(pd.DataFrame(rows).T, "fit"), ""])


def default_section() -> str:
    """Distances and CPU seconds of the default algorithm."""
    from test_default import cpu_seconds

    rows = {}
    for name, problem in PROBLEMS.items():
        if not problem.available:
            continue
        model, answer = problem.make(), exact_of(name)
        fits = [model.fit(seed=seed, progress=False) for seed in SEEDS]
        far = pd.DataFrame([(fit.params - answer.params) / answer.se for fit in fits]).abs()
        reported = pd.DataFrame([fit.mc_error / fit.bse for fit in fits])
        default, customary = cpu_seconds(model)
        rows[problem.name] = {
            "worst": far.max().max(), "median": far.max(axis=1).median(),
            "reported error": reported.max().max(),
            "passes after SAEM": max(f.record.n_iter - f.record.phases[0]["last"] for f in fits),
            "CPU s": default, "CPU s, SAEM 400 x 5": customary,
        }  # fmt: skip
    lines = ["### The default algorithm", "", "Twenty seeds; distances from the exact answer in"]
    lines.append("exact standard errors, the largest over parameters:")
    return "\n".join([*lines, "", table(pd.DataFrame(rows).T, "problem"), ""])


def main() -> None:
    """Print all sections."""
    for name, problem in PROBLEMS.items():
        if problem.available:
            print(problem_section(name))
    print(thousand_section())
    print(default_section())


if __name__ == "__main__":
    main()
