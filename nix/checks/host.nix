# Everything but what needs the internet: recipes, registries and the forge.
{
  coopcloud-ci = {
    swarm.enable = true;
    proxy.enable = true;
    drone = {
      enable = true;
      clientId = "test";
      administrator = "ci-bot";
    };
    bridge.enable = true;
    dashboard.enable = true;
    backupbot.enable = true;
    harness.enable = true;
  };
}
