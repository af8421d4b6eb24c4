# The dashboard: a swarm service at <domain> that shows the results of all runs.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.dashboard;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.dashboard = {
    enable = mkEnableOption "the dashboard and its badges";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../packages/dashboard-image.nix {};
      defaultText = "the package dashboard-image of this flake";
      description = "The image, as `dockerTools` builds it.";
      example = "inputs.self.packages.x86_64-linux.dashboard-image";
    };

    title = mkOption {
      type = types.str;
      default = "Co-op Cloud recipe tests";
      description = "What stands above each page.";
      example = "Recipe tests of our co-op";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = site.proxy.enable;
        message = "coopcloud-ci.dashboard is reached through the proxy: set coopcloud-ci.proxy.enable = true";
      }
    ];

    coopcloud-ci.reconcile.units.dashboard = {
      description = "The dashboard at ${site.domain}";
      command = "stack";
      after =
        if site.bridge.enable
        then "bridge"
        else "proxy";
      environment = {
        RECONCILE_DOMAIN = "dashboard.${site.domain}";
        RECONCILE_PROBE = "https://${site.domain}/";
        RECONCILE_IMAGE = "${cfg.package.imageName}:${cfg.package.imageTag}";
        RECONCILE_IMAGE_ARCHIVE = "${cfg.package}";
        RECONCILE_COMPOSE = "${pkgs.writeText "dashboard.json" (builtins.toJSON (import ./compose.nix {
          inherit lib;
          name = "dashboard";
          image = "${cfg.package.imageName}:${cfg.package.imageTag}";
          network = site.swarm.network;
          rule = "Host(`${site.domain}`)";
          # Above whatever a test app may claim.
          priority = 90000;
          port = 8020;
          mounts = ["${site.stateDir}/runs:/state/runs:ro"];
          environment = {
            COOPCLOUD_CI_STATE = "/state";
            CCCI_DASHBOARD_HOST = "0.0.0.0";
            CCCI_DASHBOARD_PORT = "8020";
            CCCI_DASHBOARD_TITLE = cfg.title;
            CCCI_DASHBOARD_PUBLIC_URL = "https://${site.domain}";
            CCCI_DASHBOARD_FORGE_URL = site.forgeUrl;
          };
        }))}";
      };
    };
  };
}
