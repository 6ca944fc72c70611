"""A study of transport: its TOML file, its cells, and the ordinary suites that train them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from hptransfer.datasets import Unread
from hptransfer.errors import InputError, located, suggest
from hptransfer.spec import MOST
from hptransfer.suite.claim import Named, SuiteTable
from hptransfer.suite.file import TRANSPORT, check_names, checked, parse_suite, read_table
from hptransfer.suite.ranges import LrRange
from hptransfer.suite.resolved import resolve
from hptransfer.suite.tables import OptimizerTable, Table

CellSchedule = Literal["constant", "linear"]
OPTIMIZER = "transported_scion"
NONE, FULL = 0.0, 1.0  # strengths that the prediction compares
STAR = "star"


class ModelTable(Table):
    """`[models.NAME]`: a model, its data, and the range of its learning rates."""

    model: Named
    """The model: its name, or a table of its name and its fields."""
    data: Named
    """The data set: its name, or a table of its name and its fields."""
    width: int = Field(ge=1, le=MOST)
    """Width of every run."""
    lr: LrRange
    """Learning rates of the start grid, powers of two: "2^-9..2^-3"."""
    eval_tokens: int = Field(default=65536, ge=1, le=MOST)
    """Held-out tokens of the final loss, where the data is text."""
    hp: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters of transported Scion other than beta and the transport."""

    @field_validator("model", "data", mode="before")
    @classmethod
    def _name_or_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class CellsTable(Table):
    """`[[cells]]`: every beta and schedule named here, at one model and batch."""

    model: str
    """Name of a model of the study."""
    batch: int = Field(ge=2, le=10**9, multiple_of=2)
    """Examples per step; an even number, for the noise is measured between halves."""
    steps: int = Field(ge=2, le=10**9)
    """Training steps per run."""
    beta: list[float] = Field(min_length=1)
    """Weights of the past in the momentum."""
    schedules: list[CellSchedule] = Field(default=["constant", "linear"], min_length=1)
    """How the lr changes: not at all, or linearly down to 0."""
    relatives: list[str] = Field(default_factory=list)
    """Labels of relatives that train here too."""


class Study(Table):
    """A study file. `name`: that of the file."""

    kind: Literal["transport"]
    """A study of transport in training, not a suite of training runs."""
    name: str = ""
    claim: str
    """What the study claims."""
    strengths: list[float] = Field(default=[0.0, 0.25, 0.5, 1.0])
    """Values of the strength s; 0 and 1 are needed."""
    seeds: int = Field(default=3, ge=2, le=1000)
    """Seeds at the best three learning rates of each arm."""
    examples: int = Field(default=1024, ge=2, le=MOST, multiple_of=2)
    """Examples of a large batch of the diagnostic."""
    tol: float = Field(default=0.01, gt=0.0, le=1e6, allow_inf_nan=False)
    """A gain below this counts as none, nats."""
    models: dict[str, ModelTable]
    """The models by name."""
    relatives: dict[str, OptimizerTable] = Field(default_factory=dict)
    """Other optimizers to compare, with a linear schedule."""
    cells: list[CellsTable] = Field(min_length=1)
    """The cells."""

    def groups(self) -> list["Group"]:
        """One per model and batch, in order."""
        return [Group(self, table) for table in self.cells]


@dataclass(frozen=True)
class Cell:
    """A setting in which strengths are compared."""

    model: str
    batch: int
    beta: float
    schedule: CellSchedule

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.model} batch {self.batch} beta {self.beta:g} {self.schedule}"

    def label(self, strength: float | str, *, decay: bool = False) -> str:
        """Label of the arm of this strength in the suite of the cell's group."""
        arm = strength if isinstance(strength, str) else f"{strength:g}"
        return f"b{self.beta:g}-{self.schedule}-{'decay' if decay else 's'}{arm}"


@dataclass(frozen=True)
class Group:
    """The cells that share a model and a batch, and so a suite with a folder of its own."""

    study: Study
    table: CellsTable

    @property
    def name(self) -> str:
        """Name of the suite."""
        return f"{self.table.model}-batch{self.table.batch}"

    def cells(self) -> list[Cell]:
        """Every beta and schedule."""
        own = self.table
        return [Cell(own.model, own.batch, b, s) for s in own.schedules for b in own.beta]

    def suite(self, stars: Mapping[Cell, float]) -> SuiteTable:
        """The suite of all arms; `stars`: s* of the cells in which it is known."""
        study, own = self.study, self.table
        model = study.models[own.model]
        tables: dict[str, Any] = {}
        for cell in self.cells():
            for label, strength, decay in arms(study, cell, stars.get(cell)):
                schedule = "decay" if decay else "constant"
                hp = {"transport": strength, "transport_schedule": schedule, "beta": cell.beta}
                tables[label] = {
                    "use": OPTIMIZER, "lr": model.lr, "schedule": cell.schedule,
                    "hp": {**model.hp, **hp},
                }  # fmt: skip
        for label in own.relatives:
            tables[label] = {"schedule": "linear", **study.relatives[label].model_dump(
                exclude_unset=True
            )}  # fmt: skip
        fields = {
            "name": self.name, "claim": study.claim, "model": model.model, "data": model.data,
            "proxy": model.width, "steps": own.steps, "batch": own.batch, "seeds": study.seeds,
            "max_seeds": study.seeds, "eval_tokens": model.eval_tokens, "optimizers": tables,
        }  # fmt: skip
        return parse_suite(fields, {})


def arms(study: Study, cell: Cell, star: float | None) -> Iterator[tuple[str, float, bool]]:
    """Label, strength and whether it grows as the lr decays, of every arm of a cell.

    `star`: s* of the cell, None where it is not known.
    """
    for strength in study.strengths:
        yield cell.label(strength), strength, False
    for strength in study.strengths if cell.schedule == "linear" else ():
        if strength != NONE:
            yield cell.label(strength, decay=True), strength, True
    if star is not None:
        yield cell.label(STAR), star, False


def is_study(name: str) -> bool:
    """Whether a name or a path is that of such a study. Raises InputError for an unread file."""
    return read_table(name)[0].get("kind") == TRANSPORT


def load_study(name: str) -> Study:
    """A built-in name or a path to a TOML file -> Study, checked in all fields.

    Raises InputError.
    """
    table, path, place = read_table(name)
    with located(place):
        check_names(path.stem, table)
        study = checked(Study, {**table, "name": path.stem})
        for strength in (NONE, FULL):
            if strength not in study.strengths:
                raise InputError(
                    f"strengths: {strength:g} is missing",
                    "the prediction compares strength 1 with strength 0",
                )
        for i, own in enumerate(study.cells):
            _check_known(f"cells.{i}.model", own.model, study.models)
            for label in own.relatives:
                _check_known(f"cells.{i}.relatives", label, study.relatives)
        names = [group.name for group in study.groups()]
        if twice := sorted({each for each in names if names.count(each) > 1}):
            raise InputError(
                f"cells: {twice[0]} stands there twice", "write its betas into one table"
            )
        for group in study.groups():
            resolve(group.suite({}), Unread())
    return study


def _check_known(place: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        hint = suggest(name, list(known)) or f"known: {', '.join(known) or 'none'}"
        raise InputError(f"{place}: no {name!r} in this study", hint)
