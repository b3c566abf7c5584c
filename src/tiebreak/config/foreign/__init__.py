"""Configurations of other trainers: TRL, LLaMA-Factory, Axolotl, ms-swift.

names        which setting of ours a name of theirs is, or why there is none
values       their values to ours
"""

from tiebreak.config.foreign.names import NAMES, Name, name_of

__all__ = ["NAMES", "Name", "name_of"]
