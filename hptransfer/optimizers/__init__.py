"""One file a method: an optimizer is a function of a parameter that gives a rule."""
