# The exec runner of Drone: a build is a shell of this host, of a user of its own.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.droneRunner;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.droneRunner = {
    enable = mkEnableOption "the exec runner of Drone";

    capacity = mkOption {
      type = types.ints.positive;
      default = 1;
      description = "How many builds, and so how many test apps, this host has at once (MAX_TESTS).";
      example = 2;
    };

    port = mkOption {
      type = types.port;
      default = 3121;
      description = "Where the runner's own page listens, on loopback.";
      example = 3121;
    };

    rpcSecretFile = mkOption {
      type = types.path;
      default = site.drone.rpcSecretFile;
      defaultText = "coopcloud-ci.drone.rpcSecretFile";
      description = "A file with the secret that server and runner share. systemd opens it, the runner's user cannot.";
      example = "/run/secrets/drone_rpc_secret";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = site.harness.enable;
        message = "coopcloud-ci.droneRunner runs builds with cc-ci-run: set coopcloud-ci.harness.enable = true";
      }
    ];

    systemd.services.drone-runner-exec = {
      description = "Exec runner of Drone for ${site.repository}";
      wantedBy = ["multi-user.target"];
      wants = ["network-online.target"];
      requires = ["docker.service"];
      after = ["docker.service" "network-online.target" "coopcloud-ci-drone.service"];
      # An activation must not kill a build; the next start brings the new settings.
      restartIfChanged = false;
      path = [pkgs.bash pkgs.coreutils pkgs.git site.harness.package];
      environment =
        {
          DRONE_RPC_PROTO = "https";
          DRONE_RPC_HOST = site.drone.domain;
          DRONE_RUNNER_NAME = config.networking.hostName;
          DRONE_RUNNER_CAPACITY = toString cfg.capacity;
          DRONE_RUNNER_ROOT = "%S/drone-runner";
          # What a step may see of the runner's own surroundings: nothing but these.
          DRONE_RUNNER_ENVIRON = builtins.concatStringsSep "," (lib.mapAttrsToList (name: value: "${name}:${value}") site.harness.environment);
          DRONE_LIMIT_REPOS = site.repository;
          DRONE_LIMIT_EVENTS = "custom,push";
          DRONE_HTTP_BIND = "127.0.0.1:${toString cfg.port}";
        }
        // site.harness.environment;
      serviceConfig = {
        ExecStart = "${pkgs.bash}/bin/bash ${./drone-runner/start} ${pkgs.drone-runner-exec}/bin/drone-runner-exec";
        StandardInput = "file:${cfg.rpcSecretFile}";
        StandardOutput = "journal";
        Restart = "always";
        RestartSec = 5;
        User = "coopcloud-ci";
        Group = "coopcloud-ci";
        SupplementaryGroups = ["docker"];
        StateDirectory = "drone-runner";
        StateDirectoryMode = "0700";
        Slice = "coopcloud-ci-runs.slice";
        # The reaper of a run outlives it: stopping the runner leaves it the time to take the app down.
        KillMode = "process";
        UMask = "0022";
        AmbientCapabilities = "";
        CapabilityBoundingSet = "";
        LockPersonality = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        ReadWritePaths = [site.stateDir];
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
      };
    };
  };
}
