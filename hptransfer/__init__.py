"""hptransfer: does the learning rate tuned on a small model still hold on a wide one?"""

import sys

__all__ = ["__version__"]

__version__ = "0.2.0"
"""The version, as `hptransfer --version` prints it."""


class _Renamed:
    """The last finder: names the new module to a program that imports the old one."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "hptransfer.torch":
            raise ModuleNotFoundError("hptransfer.torch is hptransfer.optim now", name=name)


sys.meta_path.append(_Renamed)
