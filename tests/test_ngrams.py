"""n-gram references: exact on small texts, and those of the built-in text."""

import math

import numpy as np
import pytest

from hptransfer.datasets import Tokens
from hptransfer.datasets.ngrams import PRIOR, ngram_losses
from hptransfer.train.engine import load_data


def text(train: list[int], heldout: list[int], vocab: int = 3) -> Tokens:
    parts = np.array(train, np.uint16), np.array(heldout, np.uint16)
    return Tokens("made_up", parts[0], parts[1], vocab, "0" * 64)


def by_hand(data: Tokens, n: int) -> float:
    """The loss of an n-gram table, token by token."""
    train, heldout = data.train.tolist(), data.heldout.tolist()

    def p(context: list[int], token: int) -> float:
        if not context:
            return (train.count(token) + 1) / (len(train) + data.vocab)
        size = len(context)
        ends = [train[i + size] for i in range(len(train) - size) if train[i : i + size] == context]
        return (ends.count(token) + PRIOR * p(context[1:], token)) / (len(ends) + PRIOR)

    places = range(n - 1, len(heldout))
    return float(np.mean([-math.log(p(heldout[i - n + 1 : i], heldout[i])) for i in places]))


def test_the_tables_are_those_of_counting_by_hand() -> None:
    rng = np.random.default_rng(0)
    data = text(rng.integers(0, 3, 60).tolist(), rng.integers(0, 3, 25).tolist())
    losses = ngram_losses(data)
    assert list(losses) == [1, 2, 3]
    for n, loss in losses.items():
        assert loss == pytest.approx(by_hand(data, n), rel=1e-12)


def test_a_text_that_repeats_is_known_from_two_tokens() -> None:
    losses = ngram_losses(text([0, 1, 2, 1] * 500, [0, 1, 2, 1] * 50))
    assert losses[3] < 0.01 < 0.3 < losses[2] < losses[1]


def test_a_table_that_would_be_too_large_is_left_out() -> None:
    assert list(ngram_losses(text([0, 1] * 50, [0, 1] * 9, vocab=5000))) == [1, 2]
    assert list(ngram_losses(text([0, 1] * 50, [0, 1] * 9, vocab=50_000))) == [1]


def test_a_trigram_table_of_the_python_source_reaches_less_than_1_9_nats() -> None:
    data = load_data({"name": "python_source"})
    assert isinstance(data, Tokens)
    losses = ngram_losses(data)
    assert 3.1 < losses[1] < 3.4
    assert 2.4 < losses[2] < 2.6
    assert 1.8 < losses[3] < 1.95
