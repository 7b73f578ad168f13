"""Nonlinear mixed-effects models: parameters, error models, structural models, data."""
