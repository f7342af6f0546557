"""The work: functions on paths, and pure functions on arrays. No click, no rich."""
