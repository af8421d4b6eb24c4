# The values of one machine.
{
  imports = [./hardware.nix];

  networking.hostName = "cc-ci-incus";
  time.timeZone = "UTC";
  system.stateVersion = "25.05";

  services.openssh = {
    enable = true;
    settings.PasswordAuthentication = false;
  };
  users.users.root.openssh.authorizedKeys.keyFiles = [./authorized_keys];

  coopcloud-ci = {
    domain = "ci-incus.example.org";
    forgeUrl = "https://git.example.org";
    repository = "recipe-maintainers/recipe-ci";
    membersOrganisation = "recipe-maintainers";

    swarm.enable = true;
    proxy.enable = true;
    drone = {
      enable = true;
      clientId = "00000000-0000-0000-0000-000000000000";
      administrator = "ci-bot";
    };
    droneRunner.enable = true;
    bridge.enable = true;
    dashboard.enable = true;
    backupbot.enable = true;
    harness.enable = true;
    secrets = {
      enable = true;
      file =
        if builtins.pathExists ../../../secrets/cc-ci-incus.yaml
        then ../../../secrets/cc-ci-incus.yaml
        else ../../../secrets/example.yaml;
    };
  };
}
