# Every secret of the host, from one sops file in the submodule `secrets/`; the wildcard certificate among them.
{
  config,
  lib,
  ...
}: let
  inherit (lib) genAttrs mkEnableOption mkIf mkOption optional types;
  cfg = config.coopcloud-ci.secrets;
  site = config.coopcloud-ci;
  # A change reaches Docker when the service that uses it is brought up again.
  used = unit: {restartUnits = optional (site.reconcile.units ? ${unit}) "coopcloud-ci-${unit}.service";};
  certificate = file: {
    path = "${site.proxy.certificateDir}/${file}";
    owner = "root";
    group = "root";
    mode = "0400";
  };
in {
  options.coopcloud-ci.secrets = {
    enable = mkEnableOption "secrets by sops-nix";

    file = mkOption {
      type = types.path;
      description = "The sops file with all secrets of the host; secrets/example.yaml shows its keys.";
      example = "../../../secrets/cc-ci.yaml";
    };

    keyFile = mkOption {
      type = types.path;
      default = "/var/lib/sops-nix/key.txt";
      description = "The bootstrap age key: the one thing that a blank machine is given.";
      example = "/var/lib/sops-nix/key.txt";
    };

    registryAuth = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the file holds `registry_auth`, a Docker `config.json` for pulling.";
      example = true;
    };
  };

  config = mkIf cfg.enable {
    warnings =
      optional (builtins.baseNameOf (toString cfg.file) == "example.yaml")
      "coopcloud-ci.secrets.file is the example, which holds no secret: this system builds and will not come up. See docs/secrets.md";

    sops = {
      defaultSopsFile = cfg.file;
      age = {
        inherit (cfg) keyFile;
        generateKey = false;
        sshKeyPaths = ["/etc/ssh/ssh_host_ed25519_key"];
      };
      gnupg.sshKeyPaths = [];
      secrets =
        genAttrs ["drone_rpc_secret" "drone_client_secret"] (_: used "drone")
        // genAttrs ["drone_admin_token"] (_: used "repository")
        // genAttrs ["forge_token" "forge_read_token" "drone_token" "webhook_secret"] (_: used "bridge")
        // genAttrs ["restic_password"] (_: used "backupbot")
        // {
          certificate = used "proxy" // certificate "fullchain.pem";
          certificate_key = used "proxy" // certificate "privkey.pem";
        }
        // lib.optionalAttrs cfg.registryAuth {
          registry_auth = {
            owner = "coopcloud-ci";
            mode = "0400";
          };
        };
    };

    coopcloud-ci.harness.registryConfigFile = mkIf cfg.registryAuth "/run/secrets/registry_auth";

    systemd.tmpfiles.rules = ["d ${site.proxy.certificateDir} 0700 root root -"];
  };
}
