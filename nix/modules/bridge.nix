# The bridge: a swarm service at <domain>/hook that turns `!testme` into a build.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) concatStringsSep mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.bridge;
  site = config.coopcloud-ci;
  secretPath = name: "/run/secrets/${name}";
in {
  options.coopcloud-ci.bridge = {
    enable = mkEnableOption "the bridge between the forge and Drone";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../packages/bridge-image.nix {};
      defaultText = "the package bridge-image of this flake";
      description = "The image, as `dockerTools` builds it.";
      example = "inputs.self.packages.x86_64-linux.bridge-image";
    };

    pollOrganisations = mkOption {
      type = types.listOf types.str;
      default = [site.membersOrganisation];
      defaultText = "[ coopcloud-ci.membersOrganisation ]";
      description = "Organisations whose repositories with the topic `coopcloud-ci` are enrolled.";
      example = ["coop-cloud"];
    };

    pollRepositories = mkOption {
      type = types.listOf types.str;
      default = [];
      description = "More enrolled repositories, `owner/name`.";
      example = ["coop-cloud/hedgedoc"];
    };

    forgeTokenFile = mkOption {
      type = types.path;
      default = "/run/secrets/forge_token";
      description = "A file with the bot's token: `write:issue`, `write:repository`, `read:organization`, `read:user`.";
      example = "/run/secrets/forge_token";
    };

    forgeReadTokenFile = mkOption {
      type = types.path;
      default = "/run/secrets/forge_read_token";
      description = "A file with a second token of the bot, which only reads.";
      example = "/run/secrets/forge_read_token";
    };

    droneTokenFile = mkOption {
      type = types.path;
      default = "/run/secrets/drone_token";
      description = "A file with a Drone token of a user who may write to the CI repository and is no administrator.";
      example = "/run/secrets/drone_token";
    };

    webhookSecretFile = mkOption {
      type = types.path;
      default = "/run/secrets/webhook_secret";
      description = "A file with the secret that signs webhooks; several, one a line, while it is changed.";
      example = "/run/secrets/webhook_secret";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.pollOrganisations != [] || cfg.pollRepositories != [];
        message = "coopcloud-ci.bridge listens to no repository: set coopcloud-ci.bridge.pollOrganisations or .pollRepositories";
      }
      {
        assertion = site.drone.enable;
        message = "coopcloud-ci.bridge starts builds in Drone: set coopcloud-ci.drone.enable = true";
      }
    ];

    systemd.tmpfiles.rules = ["d /var/lib/coopcloud-ci-bridge 0700 1000 1000 -"];

    coopcloud-ci.reconcile.units.bridge = {
      description = "The bridge at ${site.domain}/hook";
      command = "stack";
      after = "drone";
      environment = {
        RECONCILE_DOMAIN = "bridge.${site.domain}";
        RECONCILE_IMAGE = "${cfg.package.imageName}:${cfg.package.imageTag}";
        RECONCILE_IMAGE_ARCHIVE = "${cfg.package}";
        RECONCILE_COMPOSE = "${pkgs.writeText "bridge.json" (builtins.toJSON (import ./compose.nix {
          inherit lib;
          name = "bridge";
          image = "${cfg.package.imageName}:${cfg.package.imageTag}";
          network = site.swarm.network;
          rule = "Host(`${site.domain}`) && PathPrefix(`/hook`)";
          # Above the dashboard's rule, and above whatever a test app may claim.
          priority = 100000;
          port = 8010;
          secrets = ["forge_token" "forge_read_token" "drone_token" "webhook_secret"];
          mounts = ["/var/lib/coopcloud-ci-bridge:/state" "${site.stateDir}/runs:/runs:ro"];
          environment = {
            COOPCLOUD_CI_STATE = "/state";
            CCCI_BRIDGE_RESULTS_DIR = "/runs";
            CCCI_BRIDGE_HOST = "0.0.0.0";
            CCCI_BRIDGE_PORT = "8010";
            CCCI_BRIDGE_FORGE_URL = site.forgeUrl;
            CCCI_BRIDGE_FORGE_TOKEN_FILE = secretPath "forge_token";
            CCCI_BRIDGE_FORGE_READ_TOKEN_FILE = secretPath "forge_read_token";
            CCCI_BRIDGE_WEBHOOK_SECRETS_FILE = secretPath "webhook_secret";
            CCCI_BRIDGE_MEMBERS_ORG = site.membersOrganisation;
            CCCI_BRIDGE_DRONE_URL = "https://${site.drone.domain}";
            CCCI_BRIDGE_DRONE_TOKEN_FILE = secretPath "drone_token";
            CCCI_BRIDGE_DRONE_REPO = site.repository;
            CCCI_BRIDGE_DASHBOARD_URL = "https://${site.domain}";
            # More than the timeout of the CI repository.
            CCCI_BRIDGE_RUN_DEADLINE = toString ((site.runTimeoutMinutes + 30) * 60);
            POLL_ORGS = concatStringsSep "," cfg.pollOrganisations;
            POLL_REPOS = concatStringsSep "," cfg.pollRepositories;
          };
        }))}";
      };
      secrets = {
        forge_token = {
          variable = "FORGE_TOKEN_VERSION";
          file = cfg.forgeTokenFile;
        };
        forge_read_token = {
          variable = "FORGE_READ_TOKEN_VERSION";
          file = cfg.forgeReadTokenFile;
        };
        drone_token = {
          variable = "DRONE_TOKEN_VERSION";
          file = cfg.droneTokenFile;
        };
        webhook_secret = {
          variable = "WEBHOOK_SECRET_VERSION";
          file = cfg.webhookSecretFile;
        };
      };
    };
  };
}
