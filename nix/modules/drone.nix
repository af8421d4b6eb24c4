# The Drone server: the coop-cloud recipe `drone`, signed in through the forge; and the CI repository in it.
{
  config,
  lib,
  ...
}: let
  inherit (lib) head mkEnableOption mkIf mkMerge mkOption splitString types;
  cfg = config.coopcloud-ci.drone;
  site = config.coopcloud-ci;
  minutes = toString site.runTimeoutMinutes;
in {
  options.coopcloud-ci.drone = {
    enable = mkEnableOption "the Drone server";

    domain = mkOption {
      type = types.str;
      default = "drone.${site.domain}";
      defaultText = "drone.\${coopcloud-ci.domain}";
      description = "Where Drone answers. The OAuth application on the forge redirects to `https://<this>/login`.";
      example = "drone.ci.example.org";
    };

    version = mkOption {
      type = types.nullOr types.str;
      default = "1.9.0+2.26.0";
      description = "The recipe's version; null takes the newest at the first deploy and keeps it.";
      example = "1.9.0+2.26.0";
    };

    clientId = mkOption {
      type = types.str;
      description = "The id of the OAuth application that the forge made for Drone. It is no secret.";
      example = "0f0e1d2c-aaaa-bbbb-cccc-1234567890ab";
    };

    administrator = mkOption {
      type = types.strMatching "[A-Za-z0-9._-]+";
      description = "The bot on the forge that is Drone's administrator and sees the CI repository.";
      example = "ci-bot";
    };

    rpcSecretFile = mkOption {
      type = types.path;
      default = "/run/secrets/drone_rpc_secret";
      description = "A file with the secret that server and runner share.";
      example = "/run/secrets/drone_rpc_secret";
    };

    clientSecretFile = mkOption {
      type = types.path;
      default = "/run/secrets/drone_client_secret";
      description = "A file with the secret of the OAuth application.";
      example = "/run/secrets/drone_client_secret";
    };

    adminTokenFile = mkOption {
      type = types.path;
      default = "/run/secrets/drone_admin_token";
      description = "A file with a Drone token of the administrator, who has logged in once.";
      example = "/run/secrets/drone_admin_token";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = site.proxy.enable;
          message = "coopcloud-ci.drone is reached through the proxy: set coopcloud-ci.proxy.enable = true";
        }
      ];

      coopcloud-ci.reconcile.units.drone = {
        description = "Drone at ${cfg.domain}";
        command = "app";
        after = "proxy";
        environment = {
          RECONCILE_DOMAIN = cfg.domain;
          RECONCILE_RECIPE = "drone";
          RECONCILE_VERSION = toString cfg.version;
          RECONCILE_PROBE = "https://${cfg.domain}/healthz";
        };
        appEnv = {
          LETS_ENCRYPT_ENV = "";
          COMPOSE_FILE = "compose.yml:compose.gitea.yml";
          GITEA_CLIENT_ID = cfg.clientId;
          GITEA_DOMAIN = builtins.replaceStrings ["https://"] [""] site.forgeUrl;
          DRONE_GITEA_SERVER = site.forgeUrl;
          DRONE_GITEA_CLIENT_ID = cfg.clientId;
          # Set before the first login: they do not reach back.
          DRONE_REGISTRATION_CLOSED = "true";
          DRONE_USER_FILTER = site.membersOrganisation;
          DRONE_REPOSITORY_FILTER = head (splitString "/" site.repository);
          DRONE_ADMIN_USERNAME = cfg.administrator;
          DRONE_USER_CREATE = "username:${cfg.administrator},admin:true";
          DRONE_COOKIE_SECURE = "true";
          # A runner that was killed leaves its build running: let the server give it up in time.
          DRONE_CLEANUP_INTERVAL = "5m";
          DRONE_CLEANUP_DEADLINE_RUNNING = "${minutes}m";
          DRONE_CLEANUP_DEADLINE_PENDING = "24h";
        };
        secrets = {
          rpc_secret = {
            variable = "SECRET_RPC_SECRET_VERSION";
            file = cfg.rpcSecretFile;
          };
          client_secret = {
            variable = "SECRET_CLIENT_SECRET_VERSION";
            file = cfg.clientSecretFile;
          };
        };
      };
    }
    {
      coopcloud-ci.reconcile.units.repository = {
        description = "The CI repository ${site.repository} in Drone";
        command = "repository";
        after = "drone";
        environment = {
          RECONCILE_DRONE_URL = "https://${cfg.domain}";
          RECONCILE_DRONE_TOKEN = "drone_admin_token";
          RECONCILE_REPOSITORY = site.repository;
          RECONCILE_TIMEOUT_MINUTES = minutes;
        };
        credentials.drone_admin_token = cfg.adminTokenFile;
      };
    }
  ]);
}
