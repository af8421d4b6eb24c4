{coopcloud-ci.swarm.enable = true;}
