# A Hetzner Cloud machine: one virtio disk, GRUB, addresses by DHCP. `nixos-generate-config` says what yours has.
{
  boot = {
    loader.grub = {
      enable = true;
      device = "/dev/sda";
    };
    initrd.availableKernelModules = ["ahci" "sd_mod" "virtio_pci" "virtio_scsi" "xhci_pci"];
  };

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };

  networking.useDHCP = true;
}
