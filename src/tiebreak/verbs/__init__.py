"""The verbs: each is a command, a function of `tiebreak` and a file here, all of one name.

train        data, training, evaluation, verdict, report      plan      what fits in memory, nothing trained
evaluate     a finished run measured again                    report    a run on one page
export       a folder that any serving stack loads            chat      talk to a trained run
check        the doctor's look at preference data             clean     what is sound kept, the rest set aside
convert      one form of pairs to another                     init      a configuration to start from
gate         the verdict again, and what it would take        judge     a judge's word on two answers each
losses       which objectives there are                       promote   a run that passes becomes current
rollback     the version before becomes current again         history   what became current, when and why
compare      runs side by side, also across months            watch     where a run stands, from another terminal
why          what is wrong with a run, by name
"""

import os
import sys

from tiebreak.training.waiting import wait_asleep

if "torch" not in sys.modules:  # which reads it once, when it is loaded: every verb comes by here before
    wait_asleep(os.environ)
