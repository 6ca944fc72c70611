"""The noise laboratory: calls to a small gradient, against 1/eps and the number of directions."""
