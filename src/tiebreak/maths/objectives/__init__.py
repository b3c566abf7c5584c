"""Objectives: pure functions of what policy and reference say about examples, and the table that names them.

table       every objective by its name; a formula with its settings    pairwise    formulas of one pair at a time
coupled     the slope of a step's loss, where examples of a step depend on each other
"""

from tiebreak.maths.objectives.coupled import slopes
from tiebreak.maths.objectives.table import OBJECTIVES, Formula, Objective

__all__ = ["OBJECTIVES", "Formula", "Objective", "slopes"]
