"""Test a Co-op Cloud recipe on a real Docker Swarm."""
