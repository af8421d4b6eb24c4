# What a run needs of the host: the command cc-ci-run, a user, a state directory, a deadline and a memory limit.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption optionalAttrs types;
  cfg = config.coopcloud-ci.harness;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.harness = {
    enable = mkEnableOption "runs of the recipe tests";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../packages/cc-ci-run.nix {};
      defaultText = "the package cc-ci-run of this flake";
      description = "The package that holds `cc-ci-run`.";
      example = "inputs.self.packages.x86_64-linux.cc-ci-run";
    };

    memoryMax = mkOption {
      type = types.str;
      default = "4G";
      description = "How much memory all runs may use together: pytest, browser, abra. Containers have their own limit.";
      example = "8G";
    };

    registryConfigFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = ''
        A Docker `config.json` with credentials that raise the registries' limits, readable by the user `coopcloud-ci`.
        A build can read it: give it tokens that can only pull what is public.
      '';
      example = "/run/secrets/registry_auth";
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      description = "The variables of every run. Set by this module; a host may add.";
      default = {};
      example = {COOPCLOUD_UPGRADE_FROM = "last:2";};
    };
  };

  config = mkIf cfg.enable {
    coopcloud-ci.harness.environment =
      {
        COOPCLOUD_CI_STATE = site.stateDir;
        COOPCLOUD_BASE_DOMAIN = site.domain;
        # Ten minutes before Drone pulls the rug: they are for the teardown.
        COOPCLOUD_RUN_TIMEOUT = toString ((site.runTimeoutMinutes - 10) * 60);
        MAX_TESTS = toString site.droneRunner.capacity;
        CCCI_JANITOR_MAX_AGE = "0";
        COOPCLOUD_FORGE_URL = site.forgeUrl;
      }
      // optionalAttrs (cfg.registryConfigFile != null) {DOCKER_CONFIG = "/etc/coopcloud-ci/docker";};

    environment.etc = optionalAttrs (cfg.registryConfigFile != null) {
      "coopcloud-ci/docker/config.json".source = cfg.registryConfigFile;
    };

    users.users.coopcloud-ci = {
      description = "Runs of the recipe tests";
      isSystemUser = true;
      group = "coopcloud-ci";
      extraGroups = ["docker"];
      home = site.stateDir;
    };
    users.groups.coopcloud-ci = {};

    systemd.tmpfiles.rules = [
      "d ${site.stateDir} 0755 coopcloud-ci coopcloud-ci -"
      "d ${site.stateDir}/runs 0755 coopcloud-ci coopcloud-ci -"
    ];

    systemd.slices.coopcloud-ci-runs = {
      description = "Runs of the recipe tests";
      sliceConfig = {
        MemoryMax = cfg.memoryMax;
        TasksMax = 4096;
      };
    };

    systemd.services.coopcloud-ci-janitor = {
      description = "Take down what dead runs have left";
      requires = ["docker.service"];
      after = ["docker.service"];
      environment = cfg.environment;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${cfg.package}/bin/cc-ci-run coopcloud-ci janitor --max-age 0";
        User = "coopcloud-ci";
        SupplementaryGroups = ["docker"];
        Slice = "coopcloud-ci-runs.slice";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ReadWritePaths = [site.stateDir];
      };
    };

    systemd.timers.coopcloud-ci-janitor = {
      description = "Take down what dead runs have left, every ten minutes";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnBootSec = "2m";
        OnUnitInactiveSec = "10m";
      };
    };

    environment.systemPackages = [cfg.package pkgs.abra pkgs.docker-client pkgs.restic];
  };
}
