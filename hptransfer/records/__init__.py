"""The only reader and writer of results/: records, their lines, and claims on runs."""
