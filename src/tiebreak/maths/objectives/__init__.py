"""Objectives: pure functions of what policy and reference say about examples, and the table that names them.

table    every row by the name of its objective                       said     what formulas are made of
formula  what is known of one: a row of the table
gaps     objectives of a difference                                   links    what a gap costs
sides    objectives of each side alone                                steps    of a whole step
next_token   of whole next-token distributions
sums     several of them under one name                               thumbs   of completions on their own
worked   one to be called with numbers
objective    a formula with its settings, or a sum of them
modifiers    what changes an objective besides its formula's settings
divergences  what a log-ratio is worth, by what keeps the policy near its reference
running      what an objective remembers of steps that were taken
coupled      the slope of a step's loss, where examples of a step depend on each other
"""

from tiebreak.maths.objectives.coupled import slopes
from tiebreak.maths.objectives.formula import Formula
from tiebreak.maths.objectives.objective import Objective
from tiebreak.maths.objectives.running import Running
from tiebreak.maths.objectives.said import NOTHING_STATED, Pairs, Side, Stated
from tiebreak.maths.objectives.table import OBJECTIVES

__all__ = ["NOTHING_STATED", "OBJECTIVES", "Formula", "Objective", "Pairs", "Running", "Side", "Stated", "slopes"]
