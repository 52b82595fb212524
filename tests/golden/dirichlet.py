"""Writes dirichlet.h: entropies, divergences and mixtures of random Dirichlets in 50 digits (mpmath), Beta tails and
quantiles (scipy).

    python3 tests/golden/dirichlet.py | clang-format-14 > tests/golden/dirichlet.h      (needs mpmath, numpy, scipy)
"""
import mpmath
import numpy
import scipy.special

mpmath.mp.dps = 50
random = numpy.random.default_rng(20261124)
lg, psi = mpmath.loggamma, mpmath.digamma


def log_beta(alpha):
    return sum(lg(a) for a in alpha) - lg(sum(alpha))


def entropy(alpha):
    total = sum(alpha)
    return (log_beta(alpha) + (total - len(alpha)) * psi(total) - sum((a - 1) * psi(a) for a in alpha))


def divergence(a, b):
    return log_beta(b) - log_beta(a) + sum((x - y) * (psi(x) - psi(sum(a))) for x, y in zip(a, b))


def chernoff(a, b, share):
    between = [share * x + (1 - share) * y for x, y in zip(a, b)]
    return share * log_beta(a) + (1 - share) * log_beta(b) - log_beta(between)


def bound(mixture, distance):
    n = len(mixture)
    return (sum(entropy(a) for a in mixture) / n
            - sum(mpmath.log(sum(mpmath.exp(-distance(a, b)) for b in mixture) / n) for a in mixture) / n)


def alphas(count):
    return [mpmath.mpf(float(x)) for x in 10 ** random.uniform(-1, 2, count)]


def row(*numbers):
    return "{" + ", ".join(repr(float(n)) for n in numbers) + "},"


print("/* Made by tests/golden/dirichlet.py. */")
print("static const struct { int answers; double share, a[16], b[16], entropy, divergence, chernoff; } golden_pair[] = {")
for answers in (2, 3, 5, 16) * 3:
    a, b, share = alphas(answers), alphas(answers), float(random.uniform(0.05, 0.95))
    inner = [", ".join(repr(float(x)) for x in v) for v in (a, b)]
    print("{%d, %r, {%s}, {%s}, %r, %r, %r}," % (answers, share, *inner, float(entropy(a)), float(divergence(a, b)),
                                                float(chernoff(a, b, share))))
print("};")
print("static const struct { int count, answers; double alpha[64], mean, lower, upper; } golden_mixture[] = {")
for count, answers in ((1, 3), (2, 2), (5, 4), (30, 2), (7, 3)):
    mixture = [alphas(answers) for _ in range(count)]
    print("{%d, %d, {%s}, %r, %r, %r}," % (
        count, answers, ", ".join(repr(float(x)) for a in mixture for x in a),
        float(sum(entropy(a) for a in mixture) / count), float(bound(mixture, lambda a, b: chernoff(a, b, 0.5))),
        float(bound(mixture, divergence))))
print("};")
print("static const struct { double a, b, fraction, below, probability, quantile; } golden_beta[] = {")
for a, b in [*(10 ** random.uniform(-1, 3.5, (20, 2))), (0.02, 0.02), (1, 1), (10000, 3)]:
    fraction, p = float(random.beta(a, b)), float(random.uniform(0.001, 0.999))
    print(row(a, b, fraction, scipy.special.betainc(a, b, fraction), p, scipy.special.betaincinv(a, b, p)))
print("};")
