"""The command line: strings to values, results to tables. No work is done here."""
