"""Tasks that do what no task should, run with and without us: nothing may tell the two apart.

One more hostile task is one function and one line: ``@hostile()`` above a function in one of the
modules of tasks. `scenarios` says what the line may ask for, `comparison` what is compared.
"""
