"""n-gram tables as references: the held-out loss that counting a few tokens already gives."""

import numpy as np

from hptransfer.datasets import Tokens

__all__ = ["ngram_losses"]

PRIOR = 4.0  # tokens: the weight of the shorter context in the mean of counts
CELLS = 2**26  # most cells of a table


def ngram_losses(data: Tokens) -> dict[int, float]:
    """n -> held-out loss of the n-gram table of the train part, nats per token, n = 1, 2, 3.

    p(c | ab) = (count(abc) + PRIOR p(c | b)) / (count(ab) + PRIOR), and so on down to count(c) + 1.
    An order whose table would have more than CELLS cells is left out, and those above it.
    Source: interpolation with the shorter context, Chen and Goodman 1999, section 2.3 (the weight
    is ours).
    """
    vocab = data.vocab
    train, heldout = data.train.astype(np.int64), data.heldout.astype(np.int64)
    counts = np.bincount(train, minlength=vocab) + 1.0
    p = (counts / counts.sum())[heldout]
    losses = {1: _nats(p)}
    for n in (2, 3):
        if vocab**n > CELLS:
            break
        before, given = _contexts(train, n, vocab), _contexts(heldout, n, vocab)
        contexts = np.bincount(before, minlength=vocab ** (n - 1))
        table = np.bincount(before * vocab + train[n - 1 :], minlength=vocab**n)
        seen = table[given * vocab + heldout[n - 1 :]]
        p = (seen + PRIOR * p[1:]) / (contexts[given] + PRIOR)
        losses[n] = _nats(p)
    return losses


def _contexts(tokens: np.ndarray, n: int, vocab: int) -> np.ndarray:
    """The n - 1 tokens before each token that has so many, as one number in base `vocab`."""
    number = np.zeros(len(tokens) - n + 1, np.int64)
    for i in range(n - 1):
        number = number * vocab + tokens[i : len(tokens) - n + 1 + i]
    return number


def _nats(p: np.ndarray) -> float:
    return float(-np.log(p).mean())
