"""Stochastic EM and latent-variable fitting."""
