{
  coopcloud-ci = {
    swarm.enable = true;
    harness.enable = true;
  };
}
