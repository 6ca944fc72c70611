"""One file per method: an optimizer is a function of a parameter that returns a rule."""
