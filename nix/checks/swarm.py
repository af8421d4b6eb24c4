# The swarm and the network come up, and come back.
machine.wait_for_unit("docker.service")
machine.succeed("systemctl start coopcloud-ci-swarm.service")
machine.succeed("docker network inspect proxy --format '{{.Driver}}' | grep -x overlay")
machine.succeed("docker network rm proxy")
machine.succeed("systemctl start coopcloud-ci-swarm.service")
machine.succeed("docker network inspect proxy")
machine.succeed("systemctl start coopcloud-ci-prune.service")
