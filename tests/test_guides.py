"""The guides in docs/: their files run, their snippets are the files', their claims hold."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import saem
from saem import authoring
from saem.checks import check_pair, grid
from saem.exceptions import DataError, ModelError
from saem.proxies import Anchor, Recursive

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = {
    "add_a_model.md": "zero_inflated_poisson.py",
    "add_an_algorithm.md": "averaged_saem.py",
}


def load(name):
    """Module of a file in docs/examples."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def zip_module():
    return load("zero_inflated_poisson")


@pytest.fixture(scope="module")
def averaged():
    return load("averaged_saem").AveragedSAEM


def blocks(guide, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(), flags=re.DOTALL)


def shown(guide):
    """Cells of the tables in a guide: row -> cell."""
    lines = "".join(blocks(guide, "text")).splitlines()
    return [tuple(re.split(r"\s{2,}", line.strip(), maxsplit=1)) for line in lines]


@pytest.mark.parametrize("guide", GUIDES)
def test_snippets_stand_in_the_file(guide):
    source = (DOCS / "examples" / GUIDES[guide]).read_text()
    snippets = [block for block in blocks(guide, "python") if "import" not in block]
    assert snippets
    for snippet in snippets:
        assert snippet in source


def test_the_model_passes_every_check(zip_module):
    model = zip_module.ZeroInflatedPoisson.example(np.random.default_rng(1))
    cells = grid({"zip": model}).T["zip"]
    assert set(cells) == {"ok", "n/a"}
    assert shown("add_a_model.md")
    for algorithm, cell in shown("add_a_model.md"):  # later ones may have come
        assert cells[algorithm] == cell


def test_a_wrong_model_fails(zip_module):
    """The checks have teeth: with a T that forgets lam they name it."""

    class Wrong(zip_module.ZeroInflatedPoisson):
        def __init__(self, counts):
            super().__init__(counts)
            functions = {n: getattr(zip_module, n) for n in ("expect", "accumulate", "surrogate")}
            self.kernels = authoring.make_kernels(
                **functions, maximize=half_rate, project=zip_module.project
            )

        capabilities = frozenset({"expect", "surrogate"})

    maximize = zip_module.maximize

    @authoring.kernel(authoring.MAXIMIZE)
    def half_rate(s, theta):
        code = maximize(s, theta)
        theta[1] *= 0.5
        return code

    table = saem.checks.check_model(
        Wrong.example(np.random.default_rng(1)), ["em"], raise_errors=False
    )
    failed = set(table.loc[table["state"] == "failed", "check"])
    assert {"the M-step maximises the surrogate", "EM never lowers the log-likelihood"} <= failed


def test_the_maximum_is_that_of_statsmodels(zip_module):
    discrete = pytest.importorskip("statsmodels.discrete.count_model")
    counts = zip_module.ZeroInflatedPoisson.example(np.random.default_rng(3), 400).values
    fit = zip_module.ZeroInflatedPoisson(counts).fit("em", progress=False)
    reference = discrete.ZeroInflatedPoisson(counts, np.ones((400, 1))).fit(
        method="newton", maxiter=200, disp=0
    )
    logit, log_rate = reference.params
    expected = [1.0 / (1.0 + np.exp(-logit)), np.exp(log_rate)]
    np.testing.assert_allclose(fit.params, expected, rtol=1e-5)
    assert fit.llf == pytest.approx(reference.llf, abs=1e-8)
    # Squared scores against second derivatives: equal for large n only, here within 15 %.
    slope = [expected[0] * (1 - expected[0]), expected[1]]
    np.testing.assert_allclose(fit.bse, slope * reference.bse, rtol=0.15)


def test_the_model_answers(zip_module):
    model = zip_module.ZeroInflatedPoisson([0, 0, 0, 2, 3, 0, 1, 4])
    fit = model.fit("em", progress=False)
    proba = fit.predict_proba()
    assert np.all(proba[model.values > 0] == 0.0)
    assert np.all((proba[model.values == 0] > 0.0) & (proba[model.values == 0] < 1.0))
    with pytest.raises(DataError, match=r"(?s)row 1: -1\.0 is no count.*row 2: nan is no count"):
        zip_module.ZeroInflatedPoisson([0, -1, np.nan])
    with pytest.raises(DataError, match="must be a row with zeros and others"):
        zip_module.ZeroInflatedPoisson([1, 2])


def test_fits_of_the_model_are_saved(zip_module, path):
    cls = zip_module.ZeroInflatedPoisson
    fit = cls([0, 0, 0, 2, 3, 0, 1, 4]).fit("em", seed=0, progress=False)
    fit.save(path)
    again = saem.load(path, model=cls)
    assert type(again) is type(fit)
    assert again.llf == fit.llf
    assert np.array_equal(again.bse, fit.bse)
    assert np.array_equal(again.predict_proba(), fit.predict_proba())
    refitted = again.model.fit("saem", seed=1, progress=False)
    assert np.array_equal(refitted.theta, fit.model.fit("saem", seed=1, progress=False).theta)


def test_the_class_of_a_saved_model_is_given_again(zip_module, path):
    zip_module.ZeroInflatedPoisson([0, 0, 0, 2, 3]).fit("em", progress=False).save(path)
    with pytest.raises(ModelError, match=r"no code.*load\(path, model=ZeroInflatedPoisson\)"):
        saem.load(path)
    for wrong in (saem.models.GaussianMixture, "ZeroInflatedPoisson"):
        with pytest.raises(ModelError, match="the fit is of a ZeroInflatedPoisson"):
            saem.load(path, model=wrong)


@pytest.mark.parametrize(
    "name", [row for row, cell in shown("add_an_algorithm.md") if cell == "ok"]
)
def test_the_algorithm_passes_its_checks(name, averaged):
    model = getattr(saem.models, name).example(np.random.default_rng(1))
    found = check_pair(model, averaged())
    assert {outcome.state for outcome in found} == {"passed"}, found


def test_the_proxy_that_does_not_fit(averaged):
    """What the guide says of SPIDER with draws, and of SVRG in its place."""
    models = {"LinearMixed": saem.models.LinearMixed.example(np.random.default_rng(1))}
    options = (Recursive(8, "shuffle", 8), Anchor(8, "shuffle", 8))
    failing, passing = (grid(models, [averaged(proxy=proxy)]).iloc[0, 0] for proxy in options)
    assert ("LinearMixed", failing) in shown("add_an_algorithm.md")
    assert failing == "fails: reaches the maximum"
    assert passing == "ok"
