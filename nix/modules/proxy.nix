# Traefik: the coop-cloud recipe `traefik`, with the wildcard certificate of the secrets and without ACME.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.proxy;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.proxy = {
    enable = mkEnableOption "Traefik, which every app is reached through";

    domain = mkOption {
      type = types.str;
      default = "traefik.${site.domain}";
      defaultText = "traefik.\${coopcloud-ci.domain}";
      description = "The name of the proxy's own app.";
      example = "traefik.ci.example.org";
    };

    version = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "The recipe's version; null takes the newest at the first deploy and keeps it.";
      example = "3.8.0+v3.6.2";
    };

    certificateDir = mkOption {
      type = types.path;
      default = "/var/lib/ci-certs/live";
      description = "Where `fullchain.pem` and `privkey.pem` of the wildcard certificate are.";
      example = "/var/lib/ci-certs/live";
    };

    logLevel = mkOption {
      type = types.enum ["DEBUG" "INFO" "WARN" "ERROR"];
      default = "WARN";
      description = "How much Traefik says.";
      example = "INFO";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = site.swarm.enable;
        message = "coopcloud-ci.proxy needs a swarm: set coopcloud-ci.swarm.enable = true";
      }
    ];

    coopcloud-ci.reconcile.units.proxy = {
      description = "Traefik with the wildcard certificate of ${site.domain}";
      command = "app";
      after = "swarm";
      environment = {
        RECONCILE_DOMAIN = cfg.domain;
        RECONCILE_RECIPE = "traefik";
        RECONCILE_VERSION = toString cfg.version;
        RECONCILE_PROBE = "tls://${site.domain}";
        RECONCILE_PROBE_CERTIFICATE = "ssl_cert";
      };
      appEnv = {
        LOG_LEVEL = cfg.logLevel;
        # No resolver: Traefik serves the certificate of its file provider and asks nobody for one.
        LETS_ENCRYPT_ENV = "";
        WILDCARDS_ENABLED = "1";
        COMPOSE_FILE = "compose.yml:compose.wildcard.yml";
      };
      secrets = {
        ssl_cert = {
          variable = "SECRET_WILDCARD_CERT_VERSION";
          file = "${cfg.certificateDir}/fullchain.pem";
        };
        ssl_key = {
          variable = "SECRET_WILDCARD_KEY_VERSION";
          file = "${cfg.certificateDir}/privkey.pem";
        };
      };
    };

    # A certificate that something else than an activation puts there is served at once, too.
    systemd.paths.coopcloud-ci-proxy = {
      description = "Watch the wildcard certificate";
      wantedBy = ["multi-user.target"];
      pathConfig.PathChanged = "${cfg.certificateDir}/fullchain.pem";
    };

    networking.firewall.allowedTCPPorts = [80 443];
  };
}
