# The compose file of a service of ours: one container behind the proxy. Not a module: bridge.nix and dashboard.nix call it.
{
  lib,
  name,
  image,
  network,
  rule,
  priority,
  port,
  environment,
  secrets ? [],
  mounts ? [],
}: let
  inherit (lib) listToAttrs nameValuePair toUpper;
in {
  version = "3.8";
  services.app = {
    inherit image environment;
    # The engine's own init forwards signals and reaps.
    init = true;
    read_only = true;
    cap_drop = ["ALL"];
    user = "1000:1000";
    networks = [network];
    secrets =
      map (secret: {
        source = secret;
        target = secret;
        uid = "1000";
        gid = "1000";
        # The mode is octal 0400, and JSON has no octal.
        mode = 256;
      })
      secrets;
    volumes = mounts;
    tmpfs = ["/tmp"];
    healthcheck = {
      test = ["CMD" "python" "-c" "import urllib.request; urllib.request.urlopen('http://127.0.0.1:${toString port}/healthz', timeout=5)"];
      interval = "10s";
      timeout = "6s";
      retries = 6;
      start_period = "20s";
    };
    deploy = {
      replicas = 1;
      # Its state is one SQLite file: never two at once.
      update_config = {
        order = "stop-first";
        failure_action = "rollback";
      };
      restart_policy.condition = "any";
      resources.limits.memory = "512M";
      labels = {
        "traefik.enable" = "true";
        "traefik.docker.network" = network;
        "traefik.swarm.network" = network;
        "traefik.http.routers.coopcloud-ci-${name}.rule" = rule;
        "traefik.http.routers.coopcloud-ci-${name}.priority" = toString priority;
        "traefik.http.routers.coopcloud-ci-${name}.entrypoints" = "web-secure";
        "traefik.http.routers.coopcloud-ci-${name}.tls" = "true";
        "traefik.http.services.coopcloud-ci-${name}.loadbalancer.server.port" = toString port;
      };
    };
  };
  networks.${network}.external = true;
  secrets = listToAttrs (map (secret:
    nameValuePair secret {
      external = true;
      name = "\${STACK_NAME}_${secret}_\${${toUpper secret}_VERSION}";
    })
  secrets);
}
