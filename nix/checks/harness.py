# The command of a build has all it needs, and the janitor runs as its user.
machine.wait_for_unit("docker.service")
machine.succeed("cc-ci-run python -c 'import pytest_coopcloud, playwright'")
machine.fail("cc-ci-run")
machine.succeed("systemctl start coopcloud-ci-janitor.service")
