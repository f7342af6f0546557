"""The data of single directions: columns that hold one bright source alone, with all gains removed.

``V = (G dE_s)^-1 [ D - G rest G^H - sum_{o != s} G dE_o M_o (G dE_o)^H ] (G dE_s)^-H``: the residual of
the whole solve and the source's own contribution. Its image is a better model of an extended source than
the first one, which the errors had scattered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_plan import PROTECTED
from peelkit.errors import DataError, OptionError

if TYPE_CHECKING:
    from peelkit.core.dd_apply import Peeled
    from peelkit.core.dd_plan import Plan

ALL = "all"


def column_name(column: str) -> str:
    """Column for the data of the direction whose model is in ``column``."""
    return f"{column}_DATA"


def _wanted(plan: Plan) -> dict[str, str]:
    """Label to column of all that were asked for, whatever the gate makes of them."""
    asked = plan.options.own_data
    return {
        d.label: column_name(d.column) for d in plan.directions if ALL in asked or d.label in asked
    }


def columns(plan: Plan) -> dict[str, str]:
    """Label to column that is written: of what was asked for, the directions of the solve."""
    return {label: column for label, column in _wanted(plan).items() if label in plan.used}


def check(plan: Plan) -> None:
    """Refuse labels that there are not, and columns that are taken.

    Raises
    ------
    OptionError
        If there is no such direction, or its column is another one's.
    DataError
        If the column exists and may not be replaced.
    """
    labels = {d.label for d in plan.directions}
    for label in plan.options.own_data:
        if label != ALL and label not in labels:
            raise OptionError(
                f"--own-data {label}: no such direction; there are {', '.join(sorted(labels))}."
            )
    wanted = list(_wanted(plan).values())
    taken = PROTECTED | {plan.options.column, plan.data_column, "CORRECTED_DATA", *plan.models}
    for label, column in _wanted(plan).items():
        if column in taken or wanted.count(column) > 1:
            raise OptionError(
                f"--own-data {label}: its column would be {column}, which is another one's; rename the "
                "direction's column (predict-region --prefix)."
            )
    info = plan.rows.info
    present = [column for column in wanted if column in info.columns]
    if present and not plan.options.overwrite:
        raise DataError(
            f"{info.path}: {' and '.join(present)} exist and would be replaced; allow it with --overwrite "
            "('peelkit undo' puts them back)."
        )


def left_out(plan: Plan) -> list[str]:
    """Warn of directions that were asked for by name and are not in the solve."""
    return [
        f"--own-data {label}: it is skipped, so that {column} is not written"
        for label, column in _wanted(plan).items()
        if label in plan.options.own_data and label not in plan.used
    ]


def outputs(plan: Plan, done: Peeled) -> dict[str, NDArray[Any]]:
    """Column to values of a block, for all columns that ddsolve may write; 0 where a field skips a direction."""
    nothing = np.zeros_like(done.peeled)
    return {
        "CORRECTED_DATA": done.corrected,
        plan.options.column: done.peeled,
        **{column: done.own.get(label, nothing) for label, column in columns(plan).items()},
    }
