"""What the tests of mixtures with weighted records share, beside `model_references`."""

import numpy as np
from model_references import check_refused, expected, plain_errors, statistics_of


def classified(model, theta):
    """Mean statistic of the most probable latent values, and the sum of log p(y, z)."""
    s, total = np.zeros(model.stat_spec.size), 0.0
    latent, work = np.empty(model.latent_size), np.empty(max(1, model.work_size))
    for i in range(model.n_individuals):
        total += model._functions.classify(theta, model.record_of(i), latent, work)
        s += statistics_of(model, i, latent[None])[0] / model.n_individuals
    return s, total


def em(model, theta, steps):
    """Parameters after some steps of EM."""
    theta = theta.copy()
    for _ in range(steps):
        assert model._functions.maximize(expected(model, theta)[0], theta) == 0
    return theta


def free_along(model):
    """Coordinates along the free directions of the parameters, for `check_maximum`."""

    def free(theta):
        directions, params = model._directions(theta), model.params_of(theta)
        assert directions.shape == (len(params), model.n_params)
        return np.zeros(model.n_params), lambda x: model.theta_of(params + directions @ x)

    return free


def check_inadmissible(model, theta, bad):
    """Each statistic is refused and repaired, and what is repaired is not moved again."""
    for s in bad:
        repaired = check_refused(model, s, theta.copy())
        again = repaired.copy()
        model._functions.project(again, theta)
        np.testing.assert_array_equal(again, repaired)


def check_repetitions(model, repeated, counts, theta):
    """Fits of weighted and of repeated rows give the same answers."""
    weighted = model.reweighted(counts)
    assert model.row_weights.sum() == model.n_individuals
    fits = [m.fit("em", start=theta, progress=False) for m in (weighted, repeated)]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-8, atol=1e-10)
    for answer in ("llf", "aic", "bic", "icl"):
        np.testing.assert_allclose(getattr(fits[0], answer), getattr(fits[1], answer), rtol=1e-10)
    np.testing.assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-4)
    return fits[0]


def check_errors(model, fit, rtol=2e-3):
    """Standard errors are those of the curvature of the likelihood; the first weight is free."""
    k, params = model.n_components, fit.params.to_numpy()
    assert k == 2

    class Reduced:
        @staticmethod
        def theta_of(p):
            return model.theta_of(np.concatenate([p[:1], 1.0 - p[:1], p[1:]]))

        loglik = staticmethod(model.loglik)

    errors = plain_errors(Reduced, np.delete(params, 1))
    np.testing.assert_allclose(np.delete(fit.bse.to_numpy(), 1), errors, rtol=rtol)
    np.testing.assert_allclose(fit.bse.iloc[0], fit.bse.iloc[1], rtol=1e-10)
