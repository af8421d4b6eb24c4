# The oneshots that bring the swarm services up: each converges at boot, at each activation and once an hour.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) concatStringsSep mapAttrs mapAttrs' mapAttrsToList mkIf mkOption nameValuePair optional optionalAttrs types;
  cfg = config.coopcloud-ci.reconcile;
  unitName = name: "coopcloud-ci-${name}.service";

  unit = types.submodule {
    options = {
      description = mkOption {
        type = types.str;
        description = "What the unit brings up, for `systemctl status`.";
        example = "Drone";
      };

      command = mkOption {
        type = types.enum ["swarm" "app" "stack" "repository"];
        description = "Which command of `python -m reconcile` it runs.";
        example = "app";
      };

      after = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "The unit before it in the chain: it must be well first.";
        example = "proxy";
      };

      environment = mkOption {
        type = types.attrsOf types.str;
        default = {};
        description = "The `RECONCILE_*` variables of the unit, besides those that all of them have.";
        example = {RECONCILE_DOMAIN = "drone.ci.example.org";};
      };

      secrets = mkOption {
        type = types.attrsOf (types.submodule {
          options = {
            variable = mkOption {
              type = types.strMatching "[A-Z][A-Z0-9_]*";
              description = "The variable by which the recipe learns the version of the secret.";
              example = "SECRET_RPC_SECRET_VERSION";
            };
            file = mkOption {
              type = types.path;
              description = "The file that holds the value; systemd hands it to the unit as a credential.";
              example = "/run/secrets/drone_rpc_secret";
            };
          };
        });
        default = {};
        description = "The Docker secrets of the service, by their names in the recipe.";
        example = {
          rpc_secret = {
            variable = "SECRET_RPC_SECRET_VERSION";
            file = "/run/secrets/drone_rpc_secret";
          };
        };
      };

      credentials = mkOption {
        type = types.attrsOf types.path;
        default = {};
        description = "More files that systemd hands to the unit, by name.";
        example = {drone_token = "/run/secrets/drone_admin_token";};
      };

      appEnv = mkOption {
        type = types.attrsOf types.str;
        default = {};
        description = "Keys of the app's `.env`, or variables of the compose file.";
        example = {LETS_ENCRYPT_ENV = "";};
      };
    };
  };

  makeService = name: wish: {
    inherit (wish) description;
    wantedBy = ["multi-user.target"];
    requires = ["docker.service"] ++ optional (wish.after != null) (unitName wish.after);
    after = ["docker.service" "network-online.target"] ++ optional (wish.after != null) (unitName wish.after);
    wants = ["network-online.target"];
    path = [pkgs.abra pkgs.docker-client pkgs.git];
    environment =
      {
        PYTHONPATH = "${cfg.programs}";
        ABRA_DIR = "%S/coopcloud-ci-host/abra";
        HOME = "%S/coopcloud-ci-host";
        RECONCILE_NAME = name;
        RECONCILE_STATE_DIR = "%S/coopcloud-ci-host/reconcile";
        RECONCILE_NETWORK = config.coopcloud-ci.swarm.network;
        RECONCILE_SECRETS = concatStringsSep " " (mapAttrsToList (secret: value: "${secret}:${value.variable}:${secret}") wish.secrets);
      }
      // optionalAttrs (wish.after != null) {RECONCILE_AFTER = wish.after;}
      // optionalAttrs (wish.appEnv != {}) {
        RECONCILE_APP_ENV = "${pkgs.writeText "${name}.env" (concatStringsSep "" (mapAttrsToList (key: value: "${key}=${value}\n") wish.appEnv))}";
      }
      // wish.environment;
    serviceConfig = {
      # No RemainAfterExit: the next activation starts it again.
      Type = "oneshot";
      ExecStart = "${pkgs.python3}/bin/python3 -m reconcile ${wish.command}";
      StateDirectory = "coopcloud-ci-host";
      StateDirectoryMode = "0700";
      TimeoutStartSec = "20m";
      LoadCredential = mapAttrsToList (credential: file: "${credential}:${file}") (wish.credentials // mapAttrs (_: value: value.file) wish.secrets);
      PrivateTmp = true;
      ProtectSystem = "strict";
      ProtectHome = true;
      NoNewPrivileges = true;
    };
  };
in {
  options.coopcloud-ci.reconcile = {
    units = mkOption {
      type = types.attrsOf unit;
      default = {};
      description = "The oneshots, by the name of the service that each brings up.";
      example = {drone = {command = "app";};};
    };

    programs = mkOption {
      type = types.path;
      default = builtins.path {
        name = "coopcloud-ci-reconcile";
        path = ./.;
        filter = path: _: lib.hasPrefix (toString ./reconcile) path && !lib.hasInfix "__pycache__" path && !lib.hasSuffix ".nix" path;
      };
      defaultText = "nix/modules/reconcile";
      description = "The folder that holds the Python package `reconcile`.";
      example = "/srv/reconcile";
    };
  };

  config = mkIf (cfg.units != {}) {
    systemd.services = mapAttrs' (name: wish: nameValuePair "coopcloud-ci-${name}" (makeService name wish)) cfg.units;

    systemd.targets.coopcloud-ci-reconcile = {
      description = "Every service of the CI host is as the configuration says";
      wants = map unitName (builtins.attrNames cfg.units);
      # A timer does not start what is active: let it end when its units have.
      unitConfig.StopWhenUnneeded = true;
    };

    systemd.timers.coopcloud-ci-reconcile = {
      description = "Bring every service of the CI host back to the configuration, every hour";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = "hourly";
        Unit = "coopcloud-ci-reconcile.target";
      };
    };
  };
}
