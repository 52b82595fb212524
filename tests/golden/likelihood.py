"""Writes likelihood.h: Dirichlet-multinomial likelihoods and gradients in 50 digits (mpmath), digamma (scipy), and the best
constant concentrations of random votes (scipy.optimize, on the textbook formula summed galaxy by galaxy).

    python3 tests/golden/likelihood.py | clang-format-14 > tests/golden/likelihood.h      (needs mpmath, numpy, scipy)
"""
import mpmath
import numpy
import scipy.optimize
import scipy.special

mpmath.mp.dps = 50
random = numpy.random.default_rng(20240117)


def exact(alpha, votes):
    alpha = [mpmath.mpf(float(a)) for a in alpha]
    lg, total, n = mpmath.loggamma, sum(alpha), int(sum(votes))
    if n == 0:
        return 0.0, [0.0] * len(alpha)
    nll = -(lg(total) + lg(n + 1) - lg(n + total)
            + sum(lg(int(k) + a) - lg(a) - lg(int(k) + 1) for a, k in zip(alpha, votes)))
    psi = mpmath.digamma
    gradient = [-(psi(total) - psi(n + total) + psi(int(k) + a) - psi(a)) for a, k in zip(alpha, votes)]
    return float(nll), [float(g) for g in gradient]


def cases():
    for count in (2, 3, 6, 16):
        for votes_max in (1, 5, 31, 33, 40, 400, 6000, 65535):
            alpha = numpy.float32(10 ** random.uniform(-3, 4, count))
            votes = random.integers(0, votes_max + 1, count)
            votes[random.integers(count)] = votes_max
            yield alpha, votes
    for extreme in ([1e-3, 1e-3], [1e4, 1e-3], [1e4, 1e4]):
        for votes in ([0, 1], [32, 0], [33, 0], [50000, 50000]):
            yield numpy.float32(extreme), votes


def rows(count, galaxies, alpha, votes_max):
    p = random.dirichlet(alpha, galaxies)
    return numpy.array([random.multinomial(random.integers(0, votes_max + 1), one) for one in p])


def best(votes, lower, upper):
    lg = scipy.special.gammaln
    psi = scipy.special.digamma
    n = votes.sum(1)

    def loss(theta):
        a = numpy.exp(theta)
        t = a.sum()
        value = -(lg(t) + lg(n + 1) - lg(n + t) + (lg(votes + a) - lg(a) - lg(votes + 1)).sum(1)).sum()
        slope = -((psi(t) - psi(n + t))[:, None] + psi(votes + a) - psi(a)).sum(0) * a
        return value, slope

    result = min((scipy.optimize.minimize(loss, numpy.full(votes.shape[1], numpy.log(start)), jac=True, method="L-BFGS-B",
                                          bounds=[(numpy.log(lower), numpy.log(upper))] * votes.shape[1],
                                          options={"maxiter": 10000, "maxfun": 100000, "ftol": 1e-16, "gtol": 1e-10})
                  for start in (1.5, 10, 60)), key=lambda r: r.fun)
    return numpy.exp(result.x), result.fun


def numbers(values):
    return "{" + ", ".join(repr(float(v)) for v in values) + "}"


print("/* Written by likelihood.py; do not edit. */")
print("struct likelihood_case {\n    int count;\n    float alpha[16];\n    uint16_t votes[16];\n    double nll, gradient[16];\n};")
print("static const struct likelihood_case likelihood_cases[] = {")
for alpha, votes in cases():
    nll, gradient = exact(alpha, votes)
    print(f"    {{{len(alpha)}, {numbers(alpha)}, {{{', '.join(str(int(k)) for k in votes)}}}, {nll!r}, {numbers(gradient)}}},")
print("};\n")
print("static const double digamma_cases[][2] = {")
for x in [1e-3, 0.1, 0.5, 1.0, 1.4616321449683622, 2.5, 9.999, 10.0, 33.3, 1e3, 1e4, 1.6e5]:
    print(f"    {{{x!r}, {float(mpmath.digamma(mpmath.mpf(x)))!r}}},")
    assert abs(scipy.special.digamma(x) - float(mpmath.digamma(mpmath.mpf(x)))) < 1e-10 * max(1, abs(scipy.special.digamma(x)))
print("};\n")
print("struct constant_case {\n    int count, galaxies;\n    uint16_t votes[60][4];\n    double lower, upper, alpha[4], nll; /* nll: sum over galaxies */\n};")
print("static const struct constant_case constant_cases[] = {")
for alpha, votes_max in (([8, 4, 1], 40), ([0.5, 0.3], 40), ([2, 2, 2, 0.01], 10), ([300, 200], 20), ([3, 1, 1], 2)):
    votes = rows(len(alpha), 60, alpha, votes_max)
    for lower, upper in ((1.001, 100.9), (1e-3, 1e4)):
        found, value = best(votes, lower, upper)
        table = ", ".join("{" + ", ".join(str(int(k)) for k in row) + "}" for row in votes)
        print(f"    {{{len(alpha)}, 60, {{{table}}}, {lower!r}, {upper!r}, {numbers(found)}, {float(value)!r}}},")
print("};")
