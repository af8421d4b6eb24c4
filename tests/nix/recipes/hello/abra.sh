# Nothing to export.
