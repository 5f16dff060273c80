"""
The lake: all events of each app as Parquet files, which reports and data teams read.

Implementation: `job` makes an export of each app that nobody configures, which the machinery of `exports` runs;
`lists` has the files of each day, `upkeep` makes one of them at night and removes what is old.
Considerations: readers take the list of a day and not its folder (ADR 0038).
"""
