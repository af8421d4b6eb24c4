# No configs and no commands.
