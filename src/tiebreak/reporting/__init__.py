"""What people see of a run: terminal, page, plots, model card.

console    progress, warnings, tables on a terminal          page       the HTML report of a run
figures    plots as inline SVG                               card       the model card of an export
look       colours of both schemes, what all pages share     numbers    how numbers are shown
visible    hidden characters made visible, Markdown escaped
notebook   what a notebook shows of a run and others     lenient    streams that may lose their reader
losses     objectives on a terminal                      sweep      trials of a sweep, on a terminal and a page
capability_card    each measure before, during and after, and the rules that it is held against
"""
