"""Tuning: a search over configurations by Optuna, each trial an ordinary run."""
