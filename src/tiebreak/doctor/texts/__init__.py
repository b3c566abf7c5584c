"""What one text shows: what should not be in it, and numbers about its surface. Pure.

flaws          which rule looks at which text, and how a finding is shown
controls       control tokens, role headers, hidden text        secrets    keys, tokens, passwords
personal       addresses, telephone, card and account numbers   phrases    how a completion opens
scripts        in which script a text is written                features   ten numbers about the surface
wordhashes     words and runs of words as numbers               near       near-duplicates
vocabulary     which words one completion has and the other has not
leftovers      words for what is missing, prompts said once more
"""
