"""How far two sets of logits are apart."""

import numpy as np


def log_softmax(logits):
    """Row-wise log-probabilities in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def top_gap(logits):
    """Per row: the best id, and how far it is above the second best."""
    two = np.partition(logits, -2, axis=-1)[:, -2:]
    return logits.argmax(axis=-1), two[:, 1] - two[:, 0]


class Comparison:
    """Gathers, position by position, reference logits against the logits under test.

    KL is KL(reference || test) in nats. A disagreement about the best token counts as a near-tie when the reference's
    own two best logits are closer than the limit named.
    """

    def __init__(self):
        self.kl = []
        self.agree = []
        self.gap = []
        self.reference_nll = []
        self.test_nll = []

    def add(self, reference, test, targets):
        """Logits [n, n_vocab] of both sides and the ids that follow (None where nothing follows)."""
        if not np.isfinite(test).all():
            raise ValueError("the logits under test hold a NaN or an infinity")
        p, q = log_softmax(reference), log_softmax(test)
        self.kl.extend((np.exp(p) * (p - q)).sum(axis=-1))
        best, gap = top_gap(reference)
        self.agree.extend(best == test.argmax(axis=-1))
        self.gap.extend(gap)
        for row, target in enumerate(targets):
            if target is not None:
                self.reference_nll.append(-p[row, target])
                self.test_nll.append(-q[row, target])

    def summary(self):
        kl, agree, gap = np.array(self.kl), np.array(self.agree), np.array(self.gap)
        missed = gap[~agree]
        reference, test = np.mean(self.reference_nll), np.mean(self.test_nll)
        return {
            "positions": len(kl),
            "top1": float(agree.mean()),
            "disagreements": int((~agree).sum()),
            "disagreements_gap_below_0.01": int((missed < 0.01).sum()),
            "disagreements_gap_below_0.1": int((missed < 0.1).sum()),
            "largest_gap_disagreed": float(missed.max()) if len(missed) else 0.0,
            "kl_mean": float(kl.mean()),
            "kl_median": float(np.median(kl)),
            "kl_p99": float(np.quantile(kl, 0.99)),
            "kl_max": float(kl.max()),
            "perplexity_reference": float(np.exp(reference)),
            "perplexity_test": float(np.exp(test)),
            "perplexity_change": float(np.exp(test - reference) - 1.0),
        }
