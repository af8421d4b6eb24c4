# The runner stays up, listens on loopback only, and shows its secret to nobody.
machine.wait_for_unit("drone-runner-exec.service")
machine.wait_for_open_port(3121, "127.0.0.1")
machine.fail(
    "tr '\\0' '\\n' </proc/$(systemctl show -p MainPID --value drone-runner-exec)/environ | grep DRONE_RPC_SECRET"
)
