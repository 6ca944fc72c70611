"""Numbers that a drawn line holds; matplotlib says of them only that they can become an array."""

import numpy as np
from matplotlib.lines import Line2D


def xs(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata(), float)


def ys(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), float)
