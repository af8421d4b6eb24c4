# The options of NixOS and sops-nix that our modules set, with types. A name that is not here fails the check.
{lib, ...}: let
  inherit (lib) mkOption types;
  option = type: default:
    mkOption {
      inherit type default;
      description = "An option of NixOS.";
    };
  any = option types.any null;
  flag = option types.bool false;
  text = option types.str "";
  list = option (types.listOf types.str) [];
  set = option (types.attrsOf types.any) {};
  sets = options: option (types.attrsOf (types.submodule {inherit options;})) {};
  unit = {
    description = text;
    wantedBy = list;
    requires = list;
    wants = list;
    after = list;
    unitConfig = set;
  };
in {
  options = {
    assertions = option (types.listOf types.any) [];
    warnings = list;
    boot = {
      loader.grub.enable = flag;
      loader.grub.device = text;
      loader.systemd-boot.enable = flag;
      loader.efi.canTouchEfiVariables = flag;
      initrd.availableKernelModules = list;
    };
    environment.systemPackages = option (types.listOf types.package) [];
    environment.etc = sets {source = option types.path "/dev/null";};
    fileSystems = sets {
      device = text;
      fsType = text;
    };
    networking.hostName = option types.str "machine";
    networking.useDHCP = flag;
    networking.firewall.allowedTCPPorts = option (types.listOf types.port) [];
    services.openssh.enable = flag;
    services.openssh.settings = set;
    sops = {
      defaultSopsFile = option types.path "/dev/null";
      age.keyFile = option types.path "/dev/null";
      age.generateKey = flag;
      age.sshKeyPaths = option (types.listOf types.path) [];
      gnupg.sshKeyPaths = option (types.listOf types.path) [];
      secrets = sets {
        path = option (types.nullOr types.path) null;
        owner = option types.str "root";
        group = option types.str "root";
        mode = option (types.strMatching "0[0-7]{3}") "0400";
        restartUnits = list;
      };
    };
    system.stateVersion = text;
    systemd = {
      services = sets (unit
        // {
          environment = option (types.attrsOf types.str) {};
          path = option (types.listOf types.package) [];
          restartIfChanged = option types.bool true;
          serviceConfig = set;
        });
      slices = sets (unit // {sliceConfig = set;});
      targets = sets unit;
      timers = sets (unit // {timerConfig = set;});
      paths = sets (unit // {pathConfig = set;});
      tmpfiles.rules = list;
    };
    time.timeZone = text;
    users.users = sets {
      description = text;
      isSystemUser = flag;
      group = text;
      extraGroups = list;
      home = option types.path "/var/empty";
      openssh.authorizedKeys.keyFiles = option (types.listOf types.path) [];
    };
    users.groups = sets {gid = any;};
    virtualisation.docker = {
      enable = flag;
      liveRestore = option types.bool true;
      daemon.settings = set;
    };
    # Of the virtual machines of the tests only.
    virtualisation.memorySize = option types.ints.positive 1024;
  };
}
