"""The bridge: from a `!testme` under a pull request to a Drone build, and back to a verdict in one comment."""
