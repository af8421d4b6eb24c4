"""The dashboard: every recipe at a glance, every run in full, a badge for each README. It reads, and writes nothing."""
