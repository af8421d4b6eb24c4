# Without certificates the proxy cannot come up: the chain stops there and says why.
machine.wait_for_unit("docker.service")
machine.succeed("systemctl start coopcloud-ci-swarm.service")
machine.fail("systemctl start coopcloud-ci-proxy.service")
machine.fail("systemctl start coopcloud-ci-drone.service")
machine.succeed("systemctl list-timers --all | grep coopcloud-ci-reconcile")
