"""The edge: parse, call one verb, print, exit.

app           the application, and the commands about runs     data        the commands about preference data
gate          the command that decides                         judge       the command that asks a judge
registry      the commands about promoted models               losses      the command about objectives
sweep         the command that tries settings           rounds      the command of rounds of a policy's own answers
conversation  the command chat, line by line                   completion  what Tab offers
compare       the command that sets runs side by side         watch       the command that follows a run
why           the command that names causes              plan        the command that says what fits
serve         the commands of the job service                  review        the command that asks people
configured    what commands take that are given a configuration
process       what the process is set to before a library is loaded
ends          how a command ends: one line and an exit code, whatever happened
"""
