"""Writes agreement.h: random vote counts and predictions of a small decision tree with scikit-learn's scores and errors, vote
counts with scipy's probabilities, coverage and intervals, drawn subsets with scipy's hypergeometric distribution.

    python3 tests/golden/agreement.py | clang-format-14 > tests/golden/agreement.h      (needs numpy, scipy, scikit-learn)
"""
import numpy
import scipy.stats
import sklearn.metrics

random = numpy.random.default_rng(20261126)
QUESTIONS = [(0, 3, -1), (3, 2, 1), (5, 4, 4)]  # first answer, answers, parent answer
GALAXIES = 60


def array(values, form="{:.17g}"):
    return "{" + ", ".join(form.format(v) for v in values) + "}"


def make_galaxies():
    votes = numpy.zeros((GALAXIES, 9), int)
    fractions = numpy.zeros((GALAXIES, 9), numpy.float32)
    for g in range(GALAXIES):
        asked = [int(random.integers(0, 45)), 0, 0]
        for q, (first, count, parent) in enumerate(QUESTIONS):
            if parent >= 0:
                asked[q] = int(votes[g, parent])
            p = random.dirichlet(numpy.full(count, 0.5))
            votes[g, first:first + count] = random.multinomial(asked[q], p)
            guess = numpy.float32(0.7 * p + 0.3 * random.dirichlet(numpy.ones(count)))
            fractions[g, first:first + count] = guess / guess.sum()
    return votes, fractions


def reached(votes, q):
    product = 1.0
    while QUESTIONS[q][2] >= 0:
        parent = QUESTIONS[q][2]
        q = next(i for i, (first, count, _) in enumerate(QUESTIONS) if first <= parent < first + count)
        total = votes[QUESTIONS[q][0]:QUESTIONS[q][0] + QUESTIONS[q][1]].sum()
        product *= votes[parent] / total if total else 0
    return product


def scores(labels, predictions):
    values = [len(labels), sklearn.metrics.accuracy_score(labels, predictions)]
    for score in (sklearn.metrics.precision_score, sklearn.metrics.recall_score, sklearn.metrics.f1_score):
        values.append(score(labels, predictions, average="weighted", zero_division=0))
    return values


votes, fractions = make_galaxies()
print("/* Made by tests/golden/agreement.py. */")
print(f"#define GALAXIES {GALAXIES}")
print("static const uint16_t golden_votes[GALAXIES][9] = {" + ",".join(array(v, "{}") for v in votes) + "};")
print("static const float golden_fraction[GALAXIES][9] = {" + ",".join(array(v, "{:.9g}f") for v in fractions) + "};")
print("static const struct { double all[5], confident[5]; int confusion[16]; double mae[4], rmse[4]; } golden_question[] = {")
for q, (first, count, _) in enumerate(QUESTIONS):
    part, guess = votes[:, first:first + count], fractions[:, first:first + count].astype(float)
    totals = part.sum(axis=1)
    counts = numpy.array([totals[g] > 0 and reached(votes[g], q) > 0.5 for g in range(GALAXIES)])
    labels, predictions = part.argmax(axis=1), guess.argmax(axis=1)
    confident = counts & (part.max(axis=1) > 0.8 * totals)
    many = counts & (totals >= 20)
    truth = part[many] / totals[many][:, None]
    mae = [sklearn.metrics.mean_absolute_error(truth[:, a], guess[many][:, a]) for a in range(count)]
    rmse = [sklearn.metrics.mean_squared_error(truth[:, a], guess[many][:, a]) ** 0.5 for a in range(count)]
    confusion = sklearn.metrics.confusion_matrix(labels[counts], predictions[counts], labels=range(count))
    print("{" + ",".join([array(scores(labels[counts], predictions[counts])),
                          array(scores(labels[confident], predictions[confident])),
                          array(confusion.ravel(), "{}"), array(mae), array(rmse)]) + "},")
print("};")

# Counts of votes: mixtures of three passes, each with what W+20's and W+21's authors compute from the probabilities.
print("static const struct { int votes, k; double alpha[3], sum[3], ours[61], binomial[61];"
      " double within_votes[8], within_fraction[8]; int inside_votes[8], inside_fraction[8]; }"
      " golden_counts[] = {")
for n, low, high in ((30, 1, 20), (7, 0.05, 3), (60, 5, 90), (41, 0.5, 2)):
    alpha = random.uniform(low, high, 3)
    total = alpha + random.uniform(low, high, 3)
    k = int(random.integers(0, n + 1))
    counts = numpy.arange(n + 1)
    ours = scipy.stats.betabinom.pmf(counts[:, None], n, alpha, total - alpha).mean(axis=1)
    binomial = scipy.stats.binom.pmf(counts[:, None], n, alpha / total).mean(axis=1)
    rows = [[], [], [], []]
    for p in (ours, binomial):
        mean = float((counts * p).sum())
        for e in (0, 1, 5, 40):
            low_k, high_k = max(int(mean) - e, 0), min(int(mean) + e, n)
            rows[0].append(p[low_k:high_k + 1].sum())
            rows[2].append(int(low_k <= k <= high_k))
        for e in (0, 2, 10, 50):
            inside = numpy.abs(counts - mean) / n <= e / 100
            rows[1].append(p[inside].sum())
            rows[3].append(int(inside[k]))
    print("{" + ",".join([str(n), str(k), array(alpha), array(total), array(ours), array(binomial), array(rows[0]),
                          array(rows[1]), array(rows[2], "{}"), array(rows[3], "{}")]) + "},")
print("};")

# Deviation of n of the votes from all of them, the volunteers a prediction is worth.
print("static const struct { int k, votes; double fraction; double deviation[31]; } golden_drawn[] = {")
for k, n, fraction in ((12, 40, 0.42), (0, 45, 0.1), (55, 60, 0.8), (33, 73, 0.5)):
    deviation = [0.0]
    for drawn in range(1, 31):
        support = numpy.arange(drawn + 1)
        deviation.append((scipy.stats.hypergeom.pmf(support, n, k, drawn) * abs(support / drawn - k / n)).sum())
    print("{" + ",".join([str(k), str(n), f"{fraction:.17g}", array(deviation)]) + "},")
print("};")
