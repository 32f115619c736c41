"""The attacks again as plain loops over samples: the oracles of the tests."""

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import norm

FLOOR = 1e-5


def scaled_logits(logits, label):
    """phi by its definition, in extended precision where the machine has it. logits: (N, K), label: (N,)."""
    phi = []
    for z, true_class in zip(np.asarray(logits, dtype=np.longdouble), np.asarray(label), strict=True):
        others = np.delete(z, true_class)
        phi.append(z[true_class] - (others.max() + np.log(np.exp(others - others.max()).sum())))
    return np.array(phi).astype(float)


def log_p(phi):
    return -np.logaddexp(0.0, -phi)


def sides(phi, member, sample, query):
    values = phi[:, sample, query].astype(np.float64)
    return values[member[:, sample]], values[~member[:, sample]]


def variance(values):
    return np.var(values, ddof=1) if len(values) > 1 else 0.0


def pooled_variances(phi, member, query):
    """(v_in, v_out): mean squared residual over all samples."""
    result = []
    for side in (0, 1):
        squares = dof = 0.0
        for sample in range(phi.shape[1]):
            values = sides(phi, member, sample, query)[side]
            if len(values) > 1:
                squares += np.sum((values - values.mean()) ** 2)
                dof += len(values) - 1
        result.append(squares / dof if dof else 0.0)
    return result


def per_sample(target, phi, member, score):
    """Mean over queries of score(x, members, non-members, query) for every sample."""
    n_samples, n_queries = target.shape
    scores = [[score(target[n, a], *sides(phi, member, n, a), a) for a in range(n_queries)] for n in range(n_samples)]
    return np.mean(scores, axis=1)


def ratio_of_normals(x, m_in, v_in, m_out, v_out):
    return norm.logpdf(x, m_in, np.sqrt(v_in)) - norm.logpdf(x, m_out, np.sqrt(v_out))


def lira(target, phi, member):
    def score(x, inside, outside, _):
        v_in, v_out = variance(inside) + FLOOR, variance(outside) + FLOOR
        return ratio_of_normals(x, inside.mean(), v_in, outside.mean(), v_out)

    return per_sample(target, phi, member, score)


def lira_pooled(target, phi, member):
    pooled = [pooled_variances(phi, member, a) for a in range(phi.shape[2])]

    def score(x, inside, outside, a):
        return ratio_of_normals(x, inside.mean(), pooled[a][0] + FLOOR, outside.mean(), pooled[a][1] + FLOOR)

    return per_sample(target, phi, member, score)


def lira_offline(target, phi, member):
    return per_sample(target, phi, member, lambda x, _, o, __: log_ndtr((x - o.mean()) / np.sqrt(variance(o) + FLOOR)))


def lira_offline_pooled(target, phi, member):
    pooled = [pooled_variances(phi, member, a)[1] for a in range(phi.shape[2])]
    return per_sample(target, phi, member, lambda x, _, o, a: log_ndtr((x - o.mean()) / np.sqrt(pooled[a] + FLOOR)))


def dominated_shares(target, phi, member, average, gamma=2.0):
    n_samples, n_queries = target.shape
    scores = np.zeros((n_samples, n_queries))
    for a in range(n_queries):
        ratio = []
        for n in range(n_samples):
            inside, outside = (np.exp(np.maximum(log_p(v), -690)) for v in sides(phi, member, n, a))
            ratio.append(max(log_p(target[n, a]), -690) - np.log(average(inside, outside)))
        for n in range(n_samples):
            n_dominated = sum(ratio[n] - ratio[z] >= np.log(gamma) for z in range(n_samples))
            scores[n, a] = (n_dominated + 0.5 + 0.5 * ratio[n] / (1 + abs(ratio[n]))) / n_samples
    return scores.mean(1)


def rmia(target, phi, member, gamma=2.0):
    return dominated_shares(target, phi, member, lambda i, o: (i.mean() + o.mean()) / 2, gamma)


def rmia_offline(target, phi, member, offline_a=0.3):
    return dominated_shares(target, phi, member, lambda _, o: ((1 + offline_a) * o.mean() + 1 - offline_a) / 2)


def ratio(target, phi, member):
    return per_sample(target, phi, member, lambda x, i, o, _: log_p(x) - (log_p(i).mean() + log_p(o).mean()) / 2)


def ratio_offline(target, phi, member):
    return per_sample(target, phi, member, lambda x, _, o, __: log_p(x) - log_p(o).mean())


def loss(target, phi, member):
    return log_p(target.astype(np.float64)).mean(1)


def first_shadows(phi, member, query):
    """Per sample the first c members and c' non-members, (n, c) and (n, c')."""
    inside = [phi[member[:, n], n, query] for n in range(phi.shape[1])]
    outside = [phi[~member[:, n], n, query] for n in range(phi.shape[1])]
    return [np.array([v[: min(map(len, values))] for v in values]) for values in (inside, outside)]


def official(target, phi, member, score):
    """score(x, members, non-members, pooled deviation of members, of non-members)."""
    by_query = [first_shadows(phi, member, a) for a in range(phi.shape[2])]
    all_in, all_out = (np.stack([values[side] for values in by_query]).std() for side in (0, 1))
    scores = np.zeros(target.shape)
    for n, a in np.ndindex(scores.shape):
        inside, outside = (side[n] for side in by_query[a])
        scores[n, a] = score(target[n, a], inside, outside, all_in, all_out)
    return scores.mean(1)


def density(x, values, deviation):
    return norm.logpdf(x, np.median(values), deviation + 1e-30)


OFFICIAL_ORACLES = {
    "lira": lambda x, i, o, *_: density(x, i, i.std()) - density(x, o, o.std()),
    "lira-pooled": lambda x, i, o, all_in, _: density(x, i, all_in) - density(x, o, all_in),
    "lira-offline": lambda x, _, o, *__: -density(x, o, o.std()),
    "lira-offline-pooled": lambda x, _, o, __, all_out: -density(x, o, all_out),
}

GAUSSIAN_ORACLES = {
    "lira": lira,
    "lira-pooled": lira_pooled,
    "lira-offline": lira_offline,
    "lira-offline-pooled": lira_offline_pooled,
}

CONFIDENCE_ORACLES = {
    "rmia": rmia,
    "rmia-offline": rmia_offline,
    "ratio": ratio,
    "ratio-offline": ratio_offline,
    "loss": loss,
}

ORACLES = GAUSSIAN_ORACLES | CONFIDENCE_ORACLES
