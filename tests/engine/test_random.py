"""The generator: known answers, moments, independence of streams, and seeds.

Statistical tests have fixed seeds; the false-alarm rate is what a random seed would have.
"""

import numba
import numpy as np
import pytest
from scipy import stats

from saem.exceptions import OptionError
from saem.random import _bits, fill_log_uniform, fill_normal, resolve_seed, stream, uniform

#: Probability that one of the tests of this file fails by chance.
FALSE_ALARM = 1e-6


@numba.njit
def many_normal(seed, individuals, iterations, out):
    """Normal numbers of every individual and iteration."""
    for i in range(individuals):
        for k in range(iterations):
            fill_normal(stream(seed, i, k), 0, out[i, k])


@numba.njit
def many_uniform(key, out):
    """Successive uniform numbers of one stream."""
    for j in range(out.size):
        out[j] = uniform(key, j)


@pytest.mark.nojit
def test_known_answers_of_splitmix64():
    known = [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
        4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert [int(_bits(np.uint64(1234567), j)) for j in range(5)] == known


@pytest.mark.nojit
def test_uniform_numbers_lie_inside_the_interval():
    out = np.empty(200)
    many_uniform(np.uint64(7), out)
    assert np.all((out > 0.0) & (out < 1.0))


def test_uniform_distribution():
    out = np.empty(200_000)
    many_uniform(np.uint64(99), out)
    assert stats.kstest(out, "uniform").pvalue > FALSE_ALARM
    pairs, _, _ = np.histogram2d(out[::2], out[1::2], bins=32, range=[[0, 1], [0, 1]])
    assert stats.chisquare(pairs.ravel()).pvalue > FALSE_ALARM


def test_normal_distribution():
    out = np.empty((50, 10, 401))
    many_normal(3, 50, 10, out)
    x = out.ravel()
    n = x.size
    assert stats.kstest(x, "norm").pvalue > FALSE_ALARM
    limit = stats.norm.isf(0.5 * FALSE_ALARM)
    # Raw moments 1 to 4 and their variances for a standard normal.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < limit * np.sqrt(variance / n)
    # The numbers of a pair of Box and Muller are not related, nor their squares.
    half = 201
    first, second = out[:, :, :200].ravel(), out[:, :, half : half + 200].ravel()
    for a, b in ((first, second), (first**2, second**2)):
        assert abs(np.corrcoef(a, b)[0, 1]) < limit / np.sqrt(first.size)


@pytest.mark.parametrize("which", ["individuals", "iterations", "seeds"])
def test_streams_are_not_correlated(which):
    length, streams = 4000, 60
    out = np.empty((streams, length))
    for j in range(streams):
        part = np.empty((1, 1, length))
        key = {
            "individuals": (5, j, 0), "iterations": (5, 0, j), "seeds": (j, 0, 0),
        }[which]  # fmt: skip
        fill_normal(np.uint64(stream(*key)), 0, part[0, 0])
        out[j] = part[0, 0]
    correlation = np.corrcoef(out)
    pairs = streams * (streams - 1) // 2
    limit = stats.norm.isf(0.5 * FALSE_ALARM / pairs) / np.sqrt(length)
    assert np.max(np.abs(correlation - np.eye(streams))) < limit


def test_keys_do_not_collide():
    keys = {
        int(stream(seed, i, k)) for seed in (0, 1) for i in range(-5, 300) for k in range(-3, 100)
    }
    assert len(keys) == 2 * 305 * 103


@pytest.mark.nojit
@pytest.mark.parametrize("size", [0, 1, 2, 5, 8])
def test_normal_numbers_of_any_length(size):
    out = np.full(size + 1, 7.0)
    position = fill_normal(np.uint64(11), 3, out[:size])
    assert position == 3 + 2 * ((size + 1) // 2)
    assert out[size] == 7.0
    assert np.all(np.isfinite(out))
    assert len(set(out)) == size + 1


@pytest.mark.nojit
def test_log_uniform_numbers_are_logarithms_of_uniform_ones():
    out = np.empty(20)
    assert fill_log_uniform(np.uint64(5), 2, out) == 22
    expected = np.log([uniform(np.uint64(5), 2 + j) for j in range(20)])
    np.testing.assert_allclose(out, expected, rtol=1e-15)


def test_seeds_of_all_kinds():
    assert resolve_seed(17)[0] == 17
    assert resolve_seed(np.int64(17))[0] == 17
    assert resolve_seed(2**64 - 1)[0] == 2**64 - 1
    sequence = resolve_seed(np.random.SeedSequence(4))[0]
    assert sequence == resolve_seed(np.random.SeedSequence(4))[0]
    generator = np.random.default_rng(4)
    assert resolve_seed(generator)[0] != resolve_seed(generator)[0]
    assert resolve_seed(None)[0] != resolve_seed(None)[0]
    for seed in (17, np.random.SeedSequence(4), np.random.default_rng(4), None):
        entropy, rng = resolve_seed(seed)
        assert 0 <= entropy < 2**64
        # The entropy alone gives the same generator.
        assert rng.random() == resolve_seed(entropy)[1].random()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", True, [1]])
def test_seeds_that_are_refused(seed):
    with pytest.raises(OptionError, match="seed must be"):
        resolve_seed(seed)
