# What several modules need to know of the place where the host stands.
{lib, ...}: let
  inherit (lib) mkOption types;
in {
  options.coopcloud-ci = {
    domain = mkOption {
      type = types.strMatching "[a-z0-9]([a-z0-9.-]*[a-z0-9])?";
      description = "The domain of the host. The dashboard answers there, each test app at a name below it.";
      example = "ci.example.org";
    };

    forgeUrl = mkOption {
      type = types.strMatching "https://.+[^/]";
      description = "The forge (Gitea or Forgejo) where the recipes are, without `/api/v1` and without a slash at the end.";
      example = "https://git.example.org";
    };

    repository = mkOption {
      type = types.strMatching "[A-Za-z0-9._-]+/[A-Za-z0-9._-]+";
      description = "The CI repository on the forge: Drone runs its `.drone.yml`, and nothing else.";
      example = "recipe-maintainers/recipe-ci";
    };

    membersOrganisation = mkOption {
      type = types.strMatching "[A-Za-z0-9._-]+";
      description = "The organisation on the forge whose members may write `!testme`.";
      example = "recipe-maintainers";
    };

    runTimeoutMinutes = mkOption {
      type = types.ints.between 15 600;
      default = 60;
      description = ''
        When Drone kills a build, in minutes. A run ends by itself ten minutes earlier: that much is for its teardown
        and its report.
      '';
      example = 90;
    };

    stateDir = mkOption {
      type = types.path;
      default = "/var/lib/coopcloud-ci";
      description = "Where runs keep their ledgers, results and mirrors of recipes.";
      example = "/srv/coopcloud-ci";
    };
  };
}
