{pkgs, ...}: {
  coopcloud-ci = {
    swarm.enable = true;
    harness.enable = true;
    droneRunner = {
      enable = true;
      rpcSecretFile = "${pkgs.writeText "rpc-secret" "0123456789abcdef0123456789abcdef\n"}";
    };
  };
}
