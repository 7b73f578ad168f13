"""Likelihoods, standard errors, individual parameters, Monte Carlo errors of a fitted model."""
