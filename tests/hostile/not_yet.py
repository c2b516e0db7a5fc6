"""Hostile tasks that can still tell that they are measured; `python -m tests.hostile` runs them."""

NOT_YET = {
    "closes_unknown_descriptors_and_opens_files",
    "closes_unknown_and_takes_a_high_number",
    "puts_a_full_pipe_on_numbers",
    "puts_a_file_on_numbers",
    "opens_all_that_a_low_limit_allows",
    "asks_whether_it_is_traced",
    "has_its_traceback_dumped_later",
    "enters_a_user_namespace",
    "meets_its_limit_among_others",
    "counts_its_threads",
    "dumps_tracebacks_of_all_threads",
    "starts_tracing_if_it_is_off",
    "leaves_its_tracing_on",
    "asks_where_an_object_was_made",
    "starts_by_a_name_of_its_own",
    "compares_functions",
}
