"""Pure functions of the records: curves, optima, drift, regret and verdicts."""
