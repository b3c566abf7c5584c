"""Configurations of other trainers: TRL, LLaMA-Factory, Axolotl, ms-swift; and of what shares their work.

names        which setting of ours a name of theirs is, or why there is none
values       their values to ours
reading      YAML, JSON, Python and shell scripts to settings         found        settings, as they are read
code         the calls of a Python file                               bindings     what names stand for
rows         what a file makes of its rows
script       the options of a shell script                            trainers     whose they are
entries      what they say of a data set, nothing lost                datasets     the data that they name
sharing      how processes share the work: ZeRO, FSDP
account      what becomes of each setting                     terms        several objectives at once
batches      how many pairs a step has                        columns      sources and their columns, in place
translation  all of it in ours, with its origins
"""

from tiebreak.config.foreign.names import NAMES, Name, name_of

__all__ = ["NAMES", "Name", "name_of"]
