"""Sweeps that were made elsewhere: a table of anyone's runs -> rows that the analysis reads."""
