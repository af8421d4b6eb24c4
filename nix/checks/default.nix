# A virtual machine for each module, and one for all of them: `nix flake check` boots them where nixpkgs can be had.
{
  nixpkgs,
  sops-nix,
  ...
}: let
  pkgs = nixpkgs.legacyPackages.x86_64-linux;
  common = {
    imports = [sops-nix.nixosModules.sops ../modules];
    coopcloud-ci = {
      domain = "ci.test";
      forgeUrl = "https://git.test";
      repository = "tests/recipe-ci";
      membersOrganisation = "tests";
    };
    virtualisation.memorySize = 2048;
  };
  test = name: machine: testScript:
    pkgs.testers.runNixOSTest {
      name = "coopcloud-ci-${name}";
      nodes.machine = {imports = [common machine];};
      inherit testScript;
    };
in {
  x86_64-linux = {
    swarm = test "swarm" (import ./swarm.nix) (builtins.readFile ./swarm.py);
    harness = test "harness" (import ./harness.nix) (builtins.readFile ./harness.py);
    drone-runner = test "drone-runner" (import ./drone-runner.nix) (builtins.readFile ./drone-runner.py);
    host = test "host" (import ./host.nix) (builtins.readFile ./host.py);
  };
}
