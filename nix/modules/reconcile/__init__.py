"""Bring the host's own services to what the configuration says, again and again.

Each service is one systemd oneshot that runs `python -m reconcile COMMAND` with its wishes in `RECONCILE_*` variables:

* `swarm`: the engine's swarm and the overlay network of the proxy.
* `app`: a Co-op Cloud recipe, through `abra`.
* `stack`: a compose file of ours whose image comes from a file.
* `repository`: the CI repository in Drone, activated, with its settings.
* `prune`: images that nothing needs, when the disk is short.

A run that finds everything as wished changes nothing. Only the standard library is used: the host's plain Python runs it.
"""
