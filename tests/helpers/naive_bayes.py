"""lira-bayes once more, sample by sample and component by component, the oracle of test_bayes.py.

Re-stated from the heads of lira/bayes.py and lira/prior.py, with SciPy's distributions where there are any."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import norm, t


def mixture(phi, member, query, rounds):
    """(samples, components): the shadows' figures of every sample and the learned prior."""
    samples = []
    for n in range(phi.shape[1]):
        inside, outside = (phi[member[:, n] == side, n, query].astype(float) for side in (True, False))
        samples.append(
            {
                "m": (outside.mean(), inside.mean()),
                "v": [np.var(x, ddof=1) + 1e-5 if len(x) > 1 else 1e-5 for x in (outside, inside)],
                "n": (len(outside), len(inside)),
            }
        )
    for s, unit in zip(samples, trend(samples), strict=True):
        s["unit"] = unit
    prior = start(some(samples, rounds[-1][0]))
    for most, steps in rounds:
        part = some(samples, most)
        for turn in range(steps):
            better = step(prior, part, [responsibility(prior, s)[0] for s in part])
            prior = better if turn == steps - 1 else further(prior, better)
    shares = [responsibility(prior, s)[0] for s in part]
    return samples, {**prior, "d0": [freedom(prior, part, shares, side) for side in (0, 1)]}


def some(samples, most):
    """Evenly spread."""
    if len(samples) <= most:
        return samples
    return [samples[int(place)] for place in np.linspace(0, len(samples) - 1, most)]


def further(prior, better):
    """1.8 steps instead of one."""

    def log(old, new):
        return [o * (n / o) ** 1.8 for o, n in zip(old, new, strict=True)]

    weight = [log(*rows) for rows in zip(prior["weight"], better["weight"], strict=True)]
    return better | {
        "weight": [[x / sum(row) for x in row] for row in weight],
        "gap": [o + 1.8 * (n - o) for o, n in zip(prior["gap"], better["gap"], strict=True)],
        "spread": log(prior["spread"], better["spread"]),
        "v": [log(*sides) for sides in zip(prior["v"], better["v"], strict=True)],
    }


def knots_of(samples):
    most = min(max(len(samples) // 150, 1), 16)
    return sorted(set(np.quantile([level(s) for s in samples], np.linspace(0.03, 0.97, most))))


def trend(samples):
    """The gap as a piecewise linear function of the level, by ridge regression."""
    knots = knots_of(samples)
    hats, gaps = np.array([nearness(level(s), knots) for s in samples]), np.array([gap(s) for s in samples])
    ridge = np.sqrt(1e-6 * np.sum(hats**2) / len(knots)) * np.eye(len(knots))
    fit = np.linalg.lstsq(np.vstack([hats, ridge]), np.append(gaps, np.zeros(len(knots))), rcond=None)[0]
    lowest = 0.1 * np.sqrt(np.mean(gaps**2)) + 1e-6
    return [max(float(hat @ fit), lowest) for hat in hats]


def level(sample):
    return (sample["m"][0] + sample["m"][1]) / 2


def gap(sample):
    return sample["m"][1] - sample["m"][0]


def start(samples):
    total = len(samples)
    side = int(min(max(np.sqrt(total / 100), 1), 5))
    middles = [(i + 0.5) / side for i in range(side)]
    unknown = np.var([gap(s) for s in samples]) / 4 + 1e-5
    pooled, own, noise = [], [], []
    for s in samples:
        freedom = sum(s["n"]) - 2
        pooled.append(sum((n - 1) * v for n, v in zip(s["n"], s["v"], strict=True)) / freedom if freedom else unknown)
        own.append(gap(s) / s["unit"])
        noise.append(sum(v / n for n, v in zip(s["n"], s["v"], strict=True)) / s["unit"] ** 2)
    trust = [1 / (x + np.var(own)) for x in noise]
    mean = sum(w * g for w, g in zip(trust, own, strict=True)) / sum(trust)
    square = sum(w * g**2 for w, g in zip(trust, own, strict=True)) / sum(trust) - mean**2
    blur = sum(w * x for w, x in zip(trust, noise, strict=True)) / sum(trust)
    real = min(max(1 - blur / (square + 1e-300), 0.02), 1.0)
    spread = real * max(square, 0.0) / 4 + 1e-5
    order = np.argsort(pooled, kind="stable")
    knots, gaps, variances = knots_of(samples), [], []
    for part, middle in zip(np.array_split(order, side), middles, strict=True):
        gaps += [mean + np.sqrt(real) * (np.quantile([own[n] for n in part], q) - mean) for q in middles]
        variances += [np.quantile(pooled, middle)] * side
    return {
        "knots": knots,
        "weight": [[1 / side**2] * side**2 for _ in knots],
        "gap": gaps,
        "spread": [spread] * side**2,
        "v": [list(variances), list(variances)],
        "d0": [1000.0, 1000.0],
    }


def nearness(x, knots):
    """Weights of the knots by linear interpolation."""
    return [np.interp(x, knots, [float(i == j) for i in range(len(knots))]) for j in range(len(knots))]


def responsibility(prior, s):
    """(share of every component, posterior variances of both sides in every component)."""
    logs, variances = [], []
    near = nearness(level(s), prior["knots"])
    for k in range(len(prior["gap"])):
        log = np.log(sum(w * row[k] for w, row in zip(near, prior["weight"], strict=True)) + 1e-300)
        own = []
        for side in (0, 1):
            d, d0, v0 = s["n"][side] - 1, prior["d0"][side], prior["v"][side][k]
            log += -d / 2 * np.log(v0) - (d0 + d) / 2 * np.log1p(d * s["v"][side] / (d0 * v0))
            own.append((d0 * v0 + d * s["v"][side]) / (d0 + d))
        reach = own[0] / s["n"][0] + own[1] / s["n"][1] + prior["spread"][k] * s["unit"] ** 2
        logs.append(log + norm.logpdf(gap(s), prior["gap"][k] * s["unit"], np.sqrt(reach)))
        variances.append(own)
    shares = np.exp(np.array(logs) - max(logs))
    return shares / shares.sum(), variances


def step(prior, samples, shares):
    knots, count = prior["knots"], len(prior["gap"])
    weight = [[0.5 / count] * count for _ in knots]
    for s, share in zip(samples, shares, strict=True):
        for j, w in enumerate(nearness(level(s), knots)):
            for k in range(count):
                weight[j][k] += w * share[k]
    result = {"knots": knots, "weight": [[x / sum(row) for x in row] for row in weight], "d0": prior["d0"]}
    result |= {"v": [[], []], "gap": [], "spread": []}
    for k in range(count):
        for side in (0, 1):
            squares, total = 0.5 * prior["v"][side][k], 0.5
            for s, share in zip(samples, shares, strict=True):
                squares += share[k] * (s["n"][side] - 1) * s["v"][side]
                total += share[k] * (s["n"][side] - 1)
            result["v"][side].append(squares / total)
        noise = [sum(result["v"][side][k] / s["n"][side] for side in (0, 1)) / s["unit"] ** 2 for s in samples]
        tau = prior["spread"][k]
        precision = [share[k] / (x + tau) for share, x in zip(shares, noise, strict=True)]
        middle = sum(p * gap(s) / s["unit"] for p, s in zip(precision, samples, strict=True)) / sum(precision)
        top = bottom = 1e-6
        for s, share, x in zip(samples, shares, noise, strict=True):
            keep = tau / (x + tau)
            top += share[k] * ((keep * (gap(s) / s["unit"] - middle)) ** 2 + keep * x)
            bottom += share[k]
        result["gap"].append(middle)
        result["spread"].append(top / bottom + 1e-8)
    return result


def freedom(prior, samples, shares, side):
    """Degrees of freedom whose trigamma explains what the variances differ beyond chance."""
    excess = []
    for s, share in zip(samples, shares, strict=True):
        half = (s["n"][side] - 1) / 2
        if half:
            log = np.log(s["v"][side]) - digamma(half) + np.log(half)
            away = sum(w * (log - np.log(v)) ** 2 for w, v in zip(share, prior["v"][side], strict=True))
            excess.append(away - polygamma(1, half))
    if not excess or np.mean(excess) <= 2 / 1000:
        return 1000.0
    half = brentq(lambda x: polygamma(1, x) - np.mean(excess), 1e-6, 1e6, xtol=1e-14, rtol=1e-14)
    return min(max(2 * half, 2.0), 1000.0)


def lira_bayes(target, phi, member, rounds):
    """float64 (N,), mean over queries."""
    scores = np.zeros(target.shape)
    for query in range(phi.shape[2]):
        samples, prior = mixture(phi, member, query, rounds)
        for n, s in enumerate(samples):
            scores[n, query] = log_ratio(float(target[n, query]), prior, s)
    return scores.mean(1)


def log_ratio(x, prior, s):
    density = [0.0, 0.0]
    for share, own, g, tau in zip(*responsibility(prior, s), prior["gap"], prior["spread"], strict=True):
        noise = [own[side] / s["n"][side] for side in (0, 1)]
        for side, sign in ((0, -1), (1, 1)):
            # The side's own mean and the other side's moved by the gap: two measurements of one number.
            measured = np.array([s["m"][side], s["m"][1 - side] + sign * g * s["unit"]])
            precision = 1 / np.array([noise[side], noise[1 - side] + tau * s["unit"] ** 2])
            mean, variance = measured @ precision / precision.sum(), 1 / precision.sum()
            degrees = prior["d0"][side] + s["n"][side] - 1
            density[side] += share * t.pdf(x, degrees, loc=mean, scale=np.sqrt(own[side] + variance))
    return np.log(density[1]) - np.log(density[0])
