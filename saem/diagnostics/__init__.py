"""Checks of a fitted mixed-effects model: residuals, predictive checks, comparisons."""
