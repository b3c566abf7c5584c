"""What people see of a run: terminal, page, plots, model card.

console    progress, warnings, tables on a terminal          page       the HTML report of a run
document   a text that a file is made of, on standard output
sections   what stands on it, as a table                     contents   what it reads of a run, whole or not
answers    before beside after, with what differs            curves     which figures a run has
overview   the page over all runs of a folder                figures    plots as inline SVG
look       colours of both schemes, what all pages share     scripts    what may run in a page
card       the model card of an export                       numbers    how numbers are shown
terminal   where tables and bars are drawn, and how wide
visible    hidden characters made visible, Markdown escaped
notebook   what a notebook shows of a run and others     lenient    streams that may lose their reader
losses     objectives on a terminal                      comparison    runs side by side on a terminal
sparkline  a few numbers as a line of blocks            following     a run at work, on a terminal
sweep      trials of a sweep, on a terminal and a page   rounds     a loop of rounds, likewise
capability_card    each measure before, during and after, and the rules that it is held against
"""
