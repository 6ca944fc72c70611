"""The only package that reads and writes results/: records, their lines, claims on runs."""
