"""Decides whether memory leaks, which task leaks it, of what kind it is, and how long it lasts.

Pure: no clock, no I/O, no import from another room. The order of the three questions:

1. *Does it grow?* `growth` decides that for each `resource` of a worker, and stays right however
   often one looks, as it bets (`betting`) and does not test.
2. *Who does it?* `attribution` has what the runs of each task leave behind, and takes a growth
   apart by task.
3. *Where, of what kind?* `conclusion` draws the verdicts from these, and from the sites and holders
   that were found.

`forecast` says when a limit is reached. `verdict` has what is concluded, as values; `standing` says
which verdicts are news, and `words` says them to people.
"""

__all__ = [
    "attribution",
    "conclusion",
    "forecast",
    "growth",
    "resource",
    "standing",
    "verdict",
    "words",
]
