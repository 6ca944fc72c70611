"""hptransfer: does the learning rate tuned on a small model still hold on a wide one?"""

__version__ = "0.1.0"
