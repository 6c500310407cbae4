"""The commands, one file a group: parse, call a stage, print."""
