"""Evidence that a fit has converged: Monte Carlo errors, drift, other starts, causes."""
