"""From files of preference data to token ids, every record accounted for.

locations     what the user names, to files                  containers/    a file to rows, whatever it is packed in
formats/      a row to pairs, one function for each form     survey         what the first rows of a file say together
reader        sources to records                          whole         all pairs of a source in memory
writer        rows to a file                                 sheets         pairs to the rows of a file in one form
render        messages to token ids                          templates      what a chat template may cost
template_probe    tries one in a process of its own          encoding       text to ids behind other text
tokens        examples as ids by the million                 spool          pairs as text by the million
completeness  whether a template wrote all of a chat         thoughts       reasoning inside text
markers       words in the place of all that a chat says     breaks         control tokens in content stay text
chat_template a template in use, and when it is given up   conventions    how it wants content and arguments
scratch       tables that may outgrow memory                 account        what became of the records
workers       a function over many items in processes        preparation    the data of a run
split         which prompts are held out                   literals     what Python prints, to JSON
unfolding     which columns of text hold lists or objects  hub            whether the Hub answers
cache         what was made of files, by content         ready_made     the data of a run, from there where it can
prompts       which are trained on and which are held out, without a tokenizer
asking        all prompts of a source in memory, whatever its rows are made for
missed        what a prompt may need beside it, and how to bring it there
spacing       what a word is, also where no spaces are
panics        how a library in Rust gives up, kept off the screen
"""
