"""The name of a built-in study or a TOML file -> Study; InputError for wrong input."""

from hptransfer.errors import located
from hptransfer.laboratory.study import Study
from hptransfer.suite.file import LABORATORY, check_names, checked, read_table


def is_study(name: str) -> bool:
    """Whether a name or a path is that of a study. Raises InputError where it cannot be read."""
    return read_table(name)[0].get("kind") == LABORATORY


def load_study(name: str) -> Study:
    """A study, checked in all its fields. Raises InputError."""
    table, path, place = read_table(name)
    with located(place):
        check_names(path.stem, table)
        study = checked(Study, {**table, "name": path.stem})
        study.check()
    return study
