# Every service of the host, one file each.
{
  imports = [
    ./site.nix
    ./swarm.nix
    ./secrets.nix
    ./reconcile.nix
    ./proxy.nix
    ./drone.nix
    ./drone-runner.nix
    ./bridge.nix
    ./dashboard.nix
    ./backupbot.nix
    ./harness.nix
  ];
}
