"""From files of preference data to token ids, every record accounted for.

locations     what the user names, to files                  containers/    a file to rows, whatever it is packed in
formats/      a row to pairs, one function for each form     reader         sources to records
writer        rows to a file                                 split          which prompts are held out
render        messages to token ids                          templates      what a chat template may cost
template_probe    tries one in a process of its own          encoding       text to ids behind other text
tokens        tokenised pairs by the million                 spool          pairs as text by the million
scratch       bytes that may outgrow memory                  workers        a function over many items in processes
preparation   the data of a run                              account        what became of the records
"""
