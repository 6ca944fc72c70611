"""Norms on weights, their steepest directions, and the polar factor."""
