"""lira-bayes again, sample by sample and component by component: the oracle of test_bayes.py.

A restatement of the docstrings in lira/attacks/bayes.py, with SciPy's distributions where there are any. A sample is a
dict: m, v, n (mean, variance, count) of both sides, non-members first; midpoint, gap, and scale, the gap's unit."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import norm, t


def fit(phi, member, query, rounds):
    """(samples, prior)."""
    samples = []
    for n in range(phi.shape[1]):
        values = [phi[member[:, n] == side, n, query].astype(float) for side in (False, True)]
        m, v = [x.mean() for x in values], [np.var(x, ddof=1) + 1e-5 if len(x) > 1 else 1e-5 for x in values]
        samples.append({"m": m, "v": v, "n": [*map(len, values)], "midpoint": (m[0] + m[1]) / 2, "gap": m[1] - m[0]})
    for s, scale in zip(samples, trend(samples), strict=True):
        s["scale"] = scale
    prior = initial_prior(subsample(samples, rounds[-1][0]))
    for max_samples, n_steps in rounds:
        chosen = subsample(samples, max_samples)
        for step in range(n_steps):
            updated = maximize(prior, chosen, [posterior(prior, s)[0] for s in chosen])
            prior = updated if step == n_steps - 1 else extrapolate(prior, updated)
    responsibilities = [posterior(prior, s)[0] for s in chosen]
    return samples, {**prior, "d0": [fit_dof(prior, chosen, responsibilities, side) for side in (0, 1)]}


def subsample(samples, max_samples):
    """Evenly spaced."""
    if len(samples) <= max_samples:
        return samples
    return [samples[int(place)] for place in np.linspace(0, len(samples) - 1, max_samples)]


def extrapolate(prior, updated):
    """1.8 steps instead of one."""

    def scaled(old, new):
        return [o * (n / o) ** 1.8 for o, n in zip(old, new, strict=True)]

    weight = [scaled(*rows) for rows in zip(prior["weight"], updated["weight"], strict=True)]
    return updated | {
        "weight": [[x / sum(row) for x in row] for row in weight],
        "gap_mean": [o + 1.8 * (n - o) for o, n in zip(prior["gap_mean"], updated["gap_mean"], strict=True)],
        "gap_variance": scaled(prior["gap_variance"], updated["gap_variance"]),
        "v": [scaled(*sides) for sides in zip(prior["v"], updated["v"], strict=True)],
    }


def knots_of(samples):
    n_knots = min(max(len(samples) // 150, 1), 16)
    return sorted(set(np.quantile([s["midpoint"] for s in samples], np.linspace(0.03, 0.97, n_knots))))


def trend(samples):
    """The gap as a piecewise linear function of the midpoint, by ridge regression."""
    knots = knots_of(samples)
    hats, gaps = np.array([hat_functions(s["midpoint"], knots) for s in samples]), np.array([s["gap"] for s in samples])
    ridge = np.sqrt(1e-6 * np.sum(hats**2) / len(knots)) * np.eye(len(knots))
    fitted = np.linalg.lstsq(np.vstack([hats, ridge]), np.append(gaps, np.zeros(len(knots))), rcond=None)[0]
    lowest = 0.1 * np.sqrt(np.mean(gaps**2)) + 1e-6
    return [max(float(hat @ fitted), lowest) for hat in hats]


def hat_functions(x, knots):
    """Weights of the knots in linear interpolation."""
    return [np.interp(x, knots, [float(i == j) for i in range(len(knots))]) for j in range(len(knots))]


def initial_prior(samples):
    n_quantiles = int(min(max(np.sqrt(len(samples) / 100), 1), 5))
    quantiles = [(i + 0.5) / n_quantiles for i in range(n_quantiles)]
    unknown = np.var([s["gap"] for s in samples]) / 4 + 1e-5
    pooled, scaled_gaps, noise = [], [], []
    for s in samples:
        dof = sum(s["n"]) - 2
        pooled.append(sum((n - 1) * v for n, v in zip(s["n"], s["v"], strict=True)) / dof if dof else unknown)
        scaled_gaps.append(s["gap"] / s["scale"])
        noise.append(sum(v / n for n, v in zip(s["n"], s["v"], strict=True)) / s["scale"] ** 2)
    precision = [1 / (x + np.var(scaled_gaps)) for x in noise]
    mean = sum(w * g for w, g in zip(precision, scaled_gaps, strict=True)) / sum(precision)
    variance = sum(w * g**2 for w, g in zip(precision, scaled_gaps, strict=True)) / sum(precision) - mean**2
    mean_noise = sum(w * x for w, x in zip(precision, noise, strict=True)) / sum(precision)
    reliability = min(max(1 - mean_noise / (variance + 1e-300), 0.02), 1.0)
    gap_variance = reliability * max(variance, 0.0) / 4 + 1e-5
    order = np.argsort(pooled, kind="stable")
    knots, gap_means, variances = knots_of(samples), [], []
    for group, quantile in zip(np.array_split(order, n_quantiles), quantiles, strict=True):
        group_gaps = [scaled_gaps[n] for n in group]
        gap_means += [mean + np.sqrt(reliability) * (np.quantile(group_gaps, q) - mean) for q in quantiles]
        variances += [np.quantile(pooled, quantile)] * n_quantiles
    return {
        "knots": knots,
        "weight": [[1 / n_quantiles**2] * n_quantiles**2 for _ in knots],
        "gap_mean": gap_means,
        "gap_variance": [gap_variance] * n_quantiles**2,
        "v": [list(variances), list(variances)],
        "d0": [1000.0, 1000.0],
    }


def posterior(prior, s):
    """(responsibility of every component, posterior variances of both sides in every component)."""
    logs, variances = [], []
    hats = hat_functions(s["midpoint"], prior["knots"])
    for k in range(len(prior["gap_mean"])):
        log = np.log(sum(w * row[k] for w, row in zip(hats, prior["weight"], strict=True)) + 1e-300)
        v = []
        for side in (0, 1):
            d, d0, v0 = s["n"][side] - 1, prior["d0"][side], prior["v"][side][k]
            log += -d / 2 * np.log(v0) - (d0 + d) / 2 * np.log1p(d * s["v"][side] / (d0 * v0))
            v.append((d0 * v0 + d * s["v"][side]) / (d0 + d))
        gap_variance = v[0] / s["n"][0] + v[1] / s["n"][1] + prior["gap_variance"][k] * s["scale"] ** 2
        logs.append(log + norm.logpdf(s["gap"], prior["gap_mean"][k] * s["scale"], np.sqrt(gap_variance)))
        variances.append(v)
    likelihoods = np.exp(np.array(logs) - max(logs))
    return likelihoods / likelihoods.sum(), variances


def maximize(prior, samples, responsibilities):
    knots, n_components = prior["knots"], len(prior["gap_mean"])
    weight = [[0.5 / n_components] * n_components for _ in knots]
    for s, r in zip(samples, responsibilities, strict=True):
        for j, w in enumerate(hat_functions(s["midpoint"], knots)):
            for k in range(n_components):
                weight[j][k] += w * r[k]
    result = {"knots": knots, "weight": [[x / sum(row) for x in row] for row in weight], "d0": prior["d0"]}
    result |= {"v": [[], []], "gap_mean": [], "gap_variance": []}
    for k in range(n_components):
        for side in (0, 1):
            squares, dof = 0.5 * prior["v"][side][k], 0.5
            for s, r in zip(samples, responsibilities, strict=True):
                squares += r[k] * (s["n"][side] - 1) * s["v"][side]
                dof += r[k] * (s["n"][side] - 1)
            result["v"][side].append(squares / dof)
        noise = [sum(result["v"][side][k] / s["n"][side] for side in (0, 1)) / s["scale"] ** 2 for s in samples]
        tau = prior["gap_variance"][k]
        precision = [r[k] / (x + tau) for r, x in zip(responsibilities, noise, strict=True)]
        mean = sum(p * s["gap"] / s["scale"] for p, s in zip(precision, samples, strict=True)) / sum(precision)
        moment = total = 1e-6
        for s, r, x in zip(samples, responsibilities, noise, strict=True):
            shrinkage = tau / (x + tau)
            moment += r[k] * ((shrinkage * (s["gap"] / s["scale"] - mean)) ** 2 + shrinkage * x)
            total += r[k]
        result["gap_mean"].append(mean)
        result["gap_variance"].append(moment / total + 1e-8)
    return result


def fit_dof(prior, samples, responsibilities, side):
    """Degrees of freedom whose trigamma is the excess of the log variances' mean square over that of sampling."""
    excess = []
    for s, r in zip(samples, responsibilities, strict=True):
        half = (s["n"][side] - 1) / 2
        if half:
            log = np.log(s["v"][side]) - digamma(half) + np.log(half)
            square = sum(w * (log - np.log(v)) ** 2 for w, v in zip(r, prior["v"][side], strict=True))
            excess.append(square - polygamma(1, half))
    if not excess or np.mean(excess) <= 2 / 1000:
        return 1000.0
    half = brentq(lambda x: polygamma(1, x) - np.mean(excess), 1e-6, 1e6, xtol=1e-14, rtol=1e-14)
    return min(max(2 * half, 2.0), 1000.0)


def lira_bayes(target, phi, member, rounds):
    """float64 (N,), mean over queries."""
    scores = np.zeros(target.shape)
    for query in range(phi.shape[2]):
        samples, prior = fit(phi, member, query, rounds)
        for n, s in enumerate(samples):
            scores[n, query] = log_ratio(float(target[n, query]), prior, s)
    return scores.mean(1)


def log_ratio(x, prior, s):
    density = [0.0, 0.0]
    for r, v, g, tau in zip(*posterior(prior, s), prior["gap_mean"], prior["gap_variance"], strict=True):
        noise = [v[side] / s["n"][side] for side in (0, 1)]
        for side, sign in ((0, -1), (1, 1)):
            # The side's own mean and the other side's moved by the gap: two measurements of one number.
            measured = np.array([s["m"][side], s["m"][1 - side] + sign * g * s["scale"]])
            precision = 1 / np.array([noise[side], noise[1 - side] + tau * s["scale"] ** 2])
            mean, variance = measured @ precision / precision.sum(), 1 / precision.sum()
            dof = prior["d0"][side] + s["n"][side] - 1
            density[side] += r * t.pdf(x, dof, loc=mean, scale=np.sqrt(v[side] + variance))
    return np.log(density[1]) - np.log(density[0])
