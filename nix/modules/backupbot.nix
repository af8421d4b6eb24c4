# backup-bot-two: what `abra app backup` calls on this host; a run's archives go where it says.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.coopcloud-ci.backupbot;
  site = config.coopcloud-ci;
in {
  options.coopcloud-ci.backupbot = {
    enable = mkEnableOption "backup-bot-two";

    domain = mkOption {
      type = types.str;
      default = "backupbot.${site.domain}";
      defaultText = "backupbot.\${coopcloud-ci.domain}";
      description = "The name of its app; nothing answers there.";
      example = "backupbot.ci.example.org";
    };

    version = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "The recipe's version; null takes the newest at the first deploy and keeps it.";
      example = "2.3.0+2.3.0-beta";
    };

    repository = mkOption {
      type = types.str;
      default = "/backups/restic";
      description = "The restic repository: a path in its container, on a volume of its own.";
      example = "/backups/restic";
    };

    passwordFile = mkOption {
      type = types.path;
      default = "/run/secrets/restic_password";
      description = "A file with the password of that repository.";
      example = "/run/secrets/restic_password";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = site.swarm.enable;
        message = "coopcloud-ci.backupbot needs a swarm: set coopcloud-ci.swarm.enable = true";
      }
    ];

    coopcloud-ci.reconcile.units.backupbot = {
      description = "backup-bot-two";
      command = "app";
      after =
        if site.dashboard.enable
        then "dashboard"
        else "swarm";
      environment = {
        RECONCILE_DOMAIN = cfg.domain;
        RECONCILE_RECIPE = "backup-bot-two";
        RECONCILE_VERSION = toString cfg.version;
      };
      appEnv.RESTIC_REPOSITORY = cfg.repository;
      secrets.restic_password = {
        variable = "SECRET_RESTIC_PASSWORD_VERSION";
        file = cfg.passwordFile;
      };
    };
  };
}
