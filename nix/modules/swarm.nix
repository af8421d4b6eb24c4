# The Docker Engine: a swarm of one node, the overlay network `proxy`, and the disk kept in hand.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.swarm;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.swarm = {
    enable = mkEnableOption "the Docker Engine as a swarm of one node";

    advertise = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "The address or interface that the swarm names to other nodes. With one node, loopback will do.";
      example = "10.0.0.2";
    };

    network = mkOption {
      type = types.strMatching "[a-z0-9_-]+";
      default = "proxy";
      description = "The overlay network that the proxy shares with every app. Recipes call it `proxy`.";
      example = "proxy";
    };

    subnet = mkOption {
      type = types.strMatching "[0-9.]+/(8|9|1[0-9]|20)";
      default = "10.231.0.0/16";
      description = ''
        The addresses of that network, /20 or larger. The engine loses track of an address now and then, and does not
        get it back before it is restarted.
      '';
      example = "10.200.0.0/16";
    };

    pruneAbovePercent = mkOption {
      type = types.ints.between 10 95;
      default = 75;
      description = "How full the disk of the images may be, in percent, before images that nothing needs are removed.";
      example = 60;
    };

    memoryMax = mkOption {
      type = types.str;
      default = "80%";
      description = "How much memory all containers may use together: the rest is for the host itself.";
      example = "12G";
    };
  };

  config = mkIf cfg.enable {
    virtualisation.docker = {
      enable = true;
      # A swarm and live-restore exclude each other.
      liveRestore = false;
      daemon.settings = {
        log-driver = "json-file";
        log-opts = {
          max-size = "10m";
          max-file = "3";
        };
        default-address-pools = [
          {
            base = "10.232.0.0/14";
            size = 24;
          }
        ];
        cgroup-parent = "containers.slice";
      };
    };

    systemd.slices.containers = {
      description = "All containers of the host";
      sliceConfig.MemoryMax = cfg.memoryMax;
    };

    coopcloud-ci.reconcile.units.swarm = {
      description = "Swarm of one node with the network ${cfg.network}";
      command = "swarm";
      environment = {
        RECONCILE_ADVERTISE = cfg.advertise;
        RECONCILE_SUBNET = cfg.subnet;
      };
    };

    systemd.services.coopcloud-ci-prune = {
      description = "Remove container images that nothing needs";
      requires = ["docker.service"];
      after = ["docker.service"];
      path = [pkgs.docker-client pkgs.git];
      environment = {
        PYTHONPATH = "${site.reconcile.programs}";
        RECONCILE_DISK_PATH = "/var/lib/docker";
        RECONCILE_DISK_PERCENT = toString cfg.pruneAbovePercent;
        COOPCLOUD_CI_STATE = site.stateDir;
        MAX_TESTS = toString site.droneRunner.capacity;
      };
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${pkgs.python3}/bin/python3 -m reconcile prune";
      };
    };

    systemd.timers.coopcloud-ci-prune = {
      description = "Remove container images that nothing needs, every hour";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = "hourly";
        RandomizedDelaySec = "5m";
      };
    };
  };
}
