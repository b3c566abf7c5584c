"""What the labels show: agreement, circles, shortcuts, noise. Pure.

agreement    do annotators agree beyond chance       annotators   who disagrees with everybody else
graph        duplicates, contradictions, circles     shortcut     what length and surface give away
noise        the share of flipped labels             margins      how sure a model is of pairs it was not fitted on
crossfit     folds and fits                          circles      how few arcs close the circles of a graph
"""
