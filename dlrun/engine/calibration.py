"""Temperature scaling: one number that makes probabilities honest and changes no answer."""

from torch import Tensor

HOTTEST = 100.0  # temperatures are kept between 1 / HOTTEST and HOTTEST
STEPS = 60  # enough for bisection alone to find a number in float64 to nine digits


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The T for which softmax(logits / T) has the least mean -ln p(target).

    As a function of b = 1 / T that mean is convex: its slope, the mean of Σ_k p_k z_k - z_target, rises with b at the
    rate of the mean variance of z under p. Newton's steps find where it is 0, and bisection where they would leave the
    bracket. There is no such place where all answers are right (T would go to 0) or worse than chance (to infinity);
    then T is the limit, 1/100 or 100.

    Args:
        logits: z, (N, K); or log-probabilities.
        targets: (N,) class indices.

    Source: Guo et al. 2017, sec. 4.2 (arXiv:1706.04599), who find it by L-BFGS.
    """
    z = logits.double().clamp_min(-1e30)  # 0 times infinity would be no number
    wanted = z.gather(1, targets[:, None]).mean()

    def slope(b: float) -> tuple[float, float]:
        p = (b * z).softmax(-1)
        mean = (p * z).sum(-1)
        return float(mean.mean() - wanted), float(((p * z.square()).sum(-1) - mean.square()).mean())

    low, high = 1 / HOTTEST, HOTTEST
    if slope(low)[0] >= 0:
        return 1 / low
    if slope(high)[0] <= 0:
        return 1 / high
    b = 1.0
    for _ in range(STEPS):
        value, rate = slope(b)
        low, high = (low, b) if value > 0 else (b, high)
        following = b - value / rate if rate > 0 else low
        if not low < following < high:
            following = (low * high) ** 0.5
        if abs(following - b) <= 1e-9 * b:
            break
        b = following
    return 1 / b
