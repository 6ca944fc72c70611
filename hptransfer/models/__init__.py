"""The built-in models, one self-contained file each."""
